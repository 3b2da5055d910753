"""The capabilities of a server, found out by asking it."""

import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....tools.errors import ModelError
from ...models.files import local_model
from ...tokenizer import Tokenizer, TokenizerError
from ..base import EngineError
from .client import NotReached, Refused, ServerClient

_log = logging.getLogger(__name__)

__all__ = ["ServerCapabilities", "probe_server", "served"]

# Digits, blanks, tags, accents, another script: what tokenizers cut differently.
_SAMPLE = "Is 4387 * 296 = 1,298,552?\n\n  <code>print(x_1)</code> Größe, naïve: 数学 → \\boxed{½}"


@dataclass(frozen=True, slots=True)
class ServerCapabilities:
    """The findings on a model and its server.

    `tokenizer` is set if the server takes and gives token ids; otherwise `why` says what is
    missing. `raw_logprobs`: its log-probabilities are those at temperature 1, whatever it samples
    with. `listed` names the models that the server lists, where this one is not among them.
    """

    model: str
    context_length: int | None
    tokenizer: Tokenizer | None = None
    why: str = ""
    raw_logprobs: bool = True
    listed: str = ""


async def probe_server(
    server: ServerClient, wanted: str | None, tokenizer: Tokenizer | None
) -> ServerCapabilities:
    """Ask about the model of that name; about the only one, for None.

    Raises ModelError where it must be named, or `tokenizer` is not its own, and EngineError where
    the server can't be asked.
    """
    card, listed = await _card(server, wanted)
    return replace(await _probe_model(server, card, tokenizer), listed=listed)


async def _probe_model(
    server: ServerClient, card: dict[str, Any], tokenizer: Tokenizer | None
) -> ServerCapabilities:
    model, length = card["id"], card.get("context_length")
    given = tokenizer is not None
    tokenizer = tokenizer or _tokenizer_at(card.get("root"), model)
    if tokenizer is None:
        why = f"the tokenizer of {model} is not on this machine"
        return ServerCapabilities(model, length, why=why)
    try:
        why = await _why_text_only(server, model, tokenizer)
        if why and given and why == _OTHER:
            raise ModelError(f"{tokenizer.path} is not the tokenizer of {model}: {why}")
        if why:
            return ServerCapabilities(model, length, why=why)
        raw = await _gives_raw(server, model, tokenizer)
    except EngineError as error:
        if isinstance(error, NotReached) or (isinstance(error, Refused) and error.passing):
            raise
        return ServerCapabilities(model, length, why=str(error))
    return ServerCapabilities(model, length, tokenizer, raw_logprobs=raw)


async def served(server: ServerClient) -> list[dict[str, Any]]:
    """The models that a server lists: `id`, and `root` and `context_length` where it says them.

    Raises EngineError where it lists none.
    """
    answer = await server.get("/models")
    listed = answer.get("data") if isinstance(answer, dict) else answer
    cards = [card for card in listed or () if isinstance(card, dict) and card.get("id")]
    if not cards:
        raise EngineError(f"{server.host} lists no models")
    return [
        {"id": str(card["id"]), "root": card.get("root"), "context_length": _length(card)}
        for card in cards
    ]


def _length(card: dict[str, Any]) -> int | None:
    """The context's length, as different servers call it."""
    places = [card, card.get("meta"), card.get("metadata")]
    for place in places:
        for name in ("max_model_len", "context_length", "context_window", "n_ctx", "n_ctx_train"):
            length = place.get(name) if isinstance(place, dict) else None
            if isinstance(length, int) and length > 0:
                return length
    return None


async def _card(server: ServerClient, wanted: str | None) -> tuple[dict[str, Any], str]:
    """The model's entry in the list, and the names that are listed if it has none.

    A list is advice: a name that somebody gave is tried, and the server says itself if it has no
    such model. One listed model that is the same but for its tag or its owner is taken for it.
    """
    try:
        cards = await served(server)
    except NotReached:
        raise
    except EngineError as error:
        if wanted is not None:
            return {"id": wanted}, ""
        if isinstance(error, Refused) and error.status in (401, 429):
            raise
        raise EngineError(f"{error}: name a model with {server.base}#NAME") from error
    names = ", ".join(card["id"] for card in cards[:8]) + (", ..." if len(cards) > 8 else "")
    if wanted is None:
        if len(cards) > 1:
            raise ModelError(f"{server.host} serves {names}: say which with {server.base}#NAME")
        return cards[0], ""
    for card in cards:
        if card["id"] == wanted:
            return card, ""
    like = [
        card for card in cards if wanted in (card["id"].split(":")[0], card["id"].split("/")[-1])
    ]
    if len(like) == 1:
        _log.warning("%s lists %s: it is used for %s", server.host, like[0]["id"], wanted)
        return like[0], ""
    return {"id": wanted}, names


def _tokenizer_at(root: Any, model: str) -> Tokenizer | None:
    """The tokenizer of a served model, if its files are on this machine."""
    for place in (root, model):
        if not isinstance(place, str) or "/" not in place:
            continue
        try:
            folder = local_model(place)
            if folder is not None:
                return Tokenizer.load(Path(folder))
        except (ModelError, TokenizerError):
            continue
    return None


_OTHER = "the server cuts text into other tokens"


async def _why_text_only(server: ServerClient, model: str, tokenizer: Tokenizer) -> str:
    """Empty where the server gives the ids of its tokens, and they are those of the tokenizer."""
    choice = await _one_token(server, model, _SAMPLE, 1.0)
    given = choice.get("prompt_token_ids")
    if not isinstance(given, list) or not isinstance(choice.get("token_ids"), list):
        return "the server does not give token ids"
    if given != tokenizer.encode(_SAMPLE):
        return _OTHER
    if not _top(choice):
        return "the server does not give log-probabilities"
    return ""


async def _gives_raw(server: ServerClient, model: str, tokenizer: Tokenizer) -> bool:
    """Check whether log-probabilities stay the same when the temperature changes."""
    ids = tokenizer.encode(_SAMPLE)
    # 2 is as much as vLLM takes. A sure first choice stays sure then; what comes after it changes.
    plain, hot = [sorted(_top(await _one_token(server, model, ids, t))) for t in (1.0, 2.0)]
    return all(abs(a - b) < 1e-2 for a, b in zip(reversed(plain), reversed(hot), strict=False))


async def _one_token(
    server: ServerClient, model: str, prompt: str | list[int], temperature: float
) -> dict[str, Any]:
    """The first choice of a completion of one token. Raises EngineError if there is none."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": temperature,
        "top_p": 1.0,
        "logprobs": 5,
        "return_token_ids": True,
        "add_special_tokens": False,
    }
    async with aclosing(server.stream("/completions", body)) as answers:
        async for answer in answers:
            choices = answer.get("choices") if isinstance(answer, dict) else None
            if choices and isinstance(choices[0], dict):
                return dict(choices[0])
    raise EngineError(f"{server.host} gave no completion")


def _top(choice: dict[str, Any]) -> list[float]:
    """Top log-probabilities of the first token, or an empty list if the server returned none."""
    try:
        values = [float(value) for value in choice["logprobs"]["top_logprobs"][0].values()]
    except (LookupError, TypeError, ValueError, AttributeError):
        return []
    return values if values and max(values) <= 1e-3 else []
