"""Checks that a run can reach what it fetches or joins: a model's files, a Ray cluster."""

import json
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from ...tools.errors import ToolUnavailable, install_line

__all__ = ["Node", "hub_has", "ray_nodes"]

_SECONDS = 5.0
"""How long an address is waited for."""
_ASKING = 120.0
"""How long a process may take to load Ray and ask a cluster for its nodes, seconds."""
_ASK = """
import json, sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
alive = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps([[n["NodeManagerAddress"], n["Resources"].get("GPU", 0)] for n in alive]))
"""


def hub_has(name: str, *, endpoint: str | None = None) -> tuple[bool | None, str]:
    """Check whether Hugging Face has a model's files and lets us have them; with a sentence.

    Asks for the heads of two small files, nothing is fetched. None: it could not be asked, or has
    other files. `endpoint`: another server (default: HF_ENDPOINT, or Hugging Face's).
    """
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )
    except ImportError:
        return None, f"huggingface_hub is not installed: {install_line('local')}"
    for file in ("config.json", "tokenizer.json"):
        try:
            get_hf_file_metadata(hf_hub_url(name, file, endpoint=endpoint), timeout=_SECONDS)
        except GatedRepoError:
            return False, "it is gated: accept its terms on its page, then log in: hf auth login"
        except RepositoryNotFoundError:
            return False, "Hugging Face has no such model, or it is private: hf auth login"
        except EntryNotFoundError:
            if file == "config.json":
                return False, "it has no config.json: transformers can't load it"
            return None, "it has no tokenizer.json: it may be made from its other files"
        except OfflineModeIsEnabled:
            return None, "HF_HUB_OFFLINE is set: unset it, or name a folder with its files"
        except Exception as error:  # boundary: the network, in the words of several libraries
            why = type(error).__name__
            return None, (
                f"Hugging Face did not answer ({why}): without a network, fetch it elsewhere "
                f"(hf download {name}) and name its folder"
            )
    return True, "Hugging Face has it: it is fetched when the run begins"


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a Ray cluster."""

    address: str
    cards: int


def ray_nodes(address: str) -> list[Node]:
    """The nodes that are alive in the cluster at `address` (as in RAY_ADDRESS).

    Raises ToolUnavailable where nothing answers there, or no Ray.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), _SECONDS).close()
        except OSError as error:
            raise ToolUnavailable(
                f"nothing answers at {address} ({error.strerror or error})"
            ) from error
    try:
        # A process of its own: Ray waits long, and may end the one that it can't connect in.
        done = subprocess.run(
            [sys.executable, "-c", _ASK, address],
            capture_output=True, text=True, timeout=_ASKING, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ToolUnavailable(f"{address} gave no nodes within {_ASKING:.0f} seconds") from error
    with suppress(ValueError, IndexError, TypeError):
        return [Node(str(at), int(cards)) for at, cards in json.loads(done.stdout.splitlines()[-1])]
    said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
    raise ToolUnavailable(f"{address} is no cluster that this Ray can join: {said}")
