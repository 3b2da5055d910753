"""From a model's name to an engine: what is bundled, what is fetched, what lies on the disk."""

import asyncio
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..tools import Tool
from ..tools.errors import ModelError, UsageError
from .smollm2 import smollm2_folder, smollm2_path

if TYPE_CHECKING:
    from .engines import Engine
    from .tokenizer import Tokenizer

__all__ = [
    "ENGINES",
    "FORMAT_FILE",
    "KNOWN",
    "cached_models",
    "check_engine",
    "default_format",
    "find_model",
    "is_server",
    "load_engine",
    "local_model",
]

FORMAT_FILE = "interlace.json"
"""What our training leaves beside the weights: the format that they were trained in."""
KNOWN = {
    "nano": "bundled: a tiny demonstration model that knows only its tasks",
    "smollm2": "SmolLM2-135M-Instruct, fetched once through pip (93 MB) and converted",
}
"""The names that stand for one model, beside folders and Hugging Face ids."""

ENGINES = ("transformers", "vllm")
"""What can run a model on this machine."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# No weights but safetensors: a pickle runs code when it is read.
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]
_HUB_NOT = ["original/*", "onnx/*", "openvino/*", "*/*.safetensors"]


def is_server(name: str) -> bool:
    """Whether a model's name is the address of a server."""
    return "://" in name


def load_engine(
    name: str = "nano",
    *,
    device: str = "auto",
    engine: str = "transformers",
    tokenizer: str | None = None,
) -> "Engine":
    """The engine of a model, in this process or on a server.

    `name` is `nano` (bundled), `smollm2` (fetched once), a local folder, a Hugging Face id
    (`Qwen/Qwen3-0.6B`) or a server's address (`http://host:8000/v1`, with `#name` where it serves
    several models); `device` is `auto`, `cpu`, `cuda`, `cuda:1` or `mps`. `engine` is what runs the
    model here, one of `ENGINES`. `tokenizer` is a folder or Hugging Face id, for a server whose
    model's files lie elsewhere. Raises ModelError where there is no such model or its files are not
    usable, MissingExtra without torch or vLLM, UsageError for an engine that there is not.
    """
    check_engine(name, engine, tokenizer)
    if is_server(name):
        return _connect(name, tokenizer)
    from .engines import TransformersEngine, VllmEngine

    loaded: TransformersEngine | VllmEngine
    if engine == "vllm":
        loaded = VllmEngine.load(find_model(name), device=device)
    else:
        loaded = TransformersEngine.load(find_model(name), device=device)
    loaded.name = name  # as it was asked for, so that a record's name finds the model again
    return loaded


def check_engine(name: str, engine: str, tokenizer: str | None) -> None:
    """Raise UsageError where a model can't be had in this way."""
    if engine not in ENGINES:
        raise UsageError(f"there is no engine {engine!r}; there are: {', '.join(ENGINES)}")
    if is_server(name) and engine != ENGINES[0]:
        raise UsageError(f"a server runs its model itself: leave out the engine {engine}")
    if tokenizer is not None and not is_server(name):
        raise UsageError("a model brings its own tokenizer: name one for a server only")


def find_model(name: str) -> Path:
    """The folder of a model's files; fetches what may be fetched.

    Raises ModelError for a name that stands for nothing, a folder that is not there, a server's
    address, and what can't be fetched.
    """
    if is_server(name):
        raise ModelError(
            "a server's address won't do, this needs the files of a model: name a folder, a "
            "Hugging Face id, or one of " + ", ".join(KNOWN)
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
            f"unknown model {name!r}: name a folder, a Hugging Face id (owner/name), or one of "
            + ", ".join(KNOWN)
        )
    return found


def local_model(name: str) -> Path | None:
    """The folder of a model where it is on this machine already; None otherwise. Fetches nothing.

    A name among `KNOWN` comes before a folder of that name: `./nano` is the folder.
    """
    if name == "nano":
        from .engines.nano import path

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
    """The models in the Hugging Face cache, with their bytes; none where there is no such cache."""
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


def default_format(name: str, tokenizer: "Tokenizer", tools: Sequence[Tool] = ()) -> str:
    """The format a model is let speak where nobody names one.

    What it was trained in here, if that can call all the tools. Else hermes, which can call any
    tool, where the chat template knows tools or there are others than python; else retool, whose
    tags the model is told of in its system prompt. The nano model knows both, and writes Python in
    retool.
    """
    trained = _trained_format(Path(name), tools)
    if trained is not None or any(tool.name != "python" for tool in tools):
        return trained or "hermes"
    knows_tools = re.search(r"\btools\b", tokenizer.chat_template or "") is not None
    return "hermes" if knows_tools and name != "nano" else "retool"


def _trained_format(folder: Path, tools: Sequence[Tool]) -> str | None:
    """The format that training left in a model's folder, if it fits."""
    from .formats import FORMATS

    try:
        said = json.loads((folder / FORMAT_FILE).read_text(encoding="utf-8"))["format"]
        FORMATS[said].check(tools)
    except (OSError, ValueError, LookupError, TypeError, UsageError):
        return None
    return str(said)


def _connect(address: str, tokenizer: str | None) -> "Engine":
    from .engines.http import HttpEngine
    from .tokenizer import Tokenizer

    own = None if tokenizer is None else Tokenizer.load(find_model(tokenizer))
    # In a thread: whoever loads an engine may be inside an event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, HttpEngine.connect(address, tokenizer=own)).result()


def _from_hub(name: str, *, fetch: bool = True) -> Path | None:
    """The files of a Hugging Face model: from its cache, or fetched into it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError as error:
        if not fetch:
            return None
        raise ModelError(
            f"fetching {name} needs huggingface_hub: pip install 'interlace[local]'"
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
