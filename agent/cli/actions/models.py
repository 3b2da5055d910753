"""`interlace models`: what a server serves, or what is on this machine."""

import asyncio
import sys
from typing import Any

from ....rollout.engines.http.engine import HttpEngine, served_models
from ....rollout.models.files import KNOWN, cached_models, local_model
from ..exits import print_json
from ..render.rows import print_rows
from ..render.terminal import make_console

__all__ = ["list_models"]


def list_models(server: str | None, *, json: bool) -> None:
    """Print the models of a server, or of this machine."""
    found = _on_this_machine() if server is None else asyncio.run(_on_server(server))
    if json:
        print_json({"models": found, "error": None})
    else:
        _print(found)


def _on_this_machine() -> list[dict[str, Any]]:
    known = [
        {"name": name, "here": local_model(name) is not None, "note": note}
        for name, note in KNOWN.items()
    ]
    cached = [
        {"name": name, "here": True, "note": f"Hugging Face cache, {size / 1e6:,.0f} MB"}
        for name, size in cached_models()
    ]
    return [*known, *cached]


async def _on_server(address: str) -> list[dict[str, Any]]:
    base, _, wanted = address.partition("#")
    found = []
    cards = [] if wanted else await served_models(base)
    for card in cards:
        length = card["context_length"]
        note = "context length unknown" if length is None else f"context of {length} tokens"
        found.append({"name": f"{base}#{card['id']}", "here": False, "note": note} | card)
    if len(cards) < 2:  # a token is sampled to find this out: not of every model of a large server
        engine = await HttpEngine.connect(str(found[0]["name"]) if found else address)
        said = "token ids: can be trained on" if engine.exact else f"text only: {engine.why}"
        first = found[0] if found else {"name": address, "here": False, "note": ""}
        first["note"] = "; ".join(filter(None, [str(first["note"]), said]))
        found = [first | {"exact": engine.exact}]
    return found


def _print(found: list[dict[str, Any]]) -> None:
    rows = [(str(one["name"]), "yes" if one["here"] else "no", str(one["note"])) for one in found]
    print_rows(make_console(sys.stdout), ("--model", "here", ""), rows)
