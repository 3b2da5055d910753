"""Digests of files by content: a model's folder, a database, a corpus."""

from hashlib import blake2b
from pathlib import Path

from ...tools.errors import ModelError
from .files import is_server, local_model

__all__ = ["fingerprint_files", "fingerprint_model"]

_WHOLE = 64 << 20
"""Bytes up to which a file is read whole."""
_BLOCKS, _BLOCK = 4096, 4096
"""Of a larger file, so many blocks of so many bytes are read, evenly spread."""
_MODEL = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def fingerprint_model(name: str) -> str | None:
    """A digest of the weights, configuration, tokenizer and chat template of a model on this
    machine: 16 hexadecimal digits, or None for a server's model and one that is not here.

    Where the folder lies and when its files were touched does not count.
    """
    try:
        folder = None if is_server(name) else local_model(name)
    except ModelError:
        return None
    if folder is None:
        return None
    files = sorted({file for pattern in _MODEL for file in folder.glob(pattern)})
    return fingerprint_files(files)


def fingerprint_files(files: list[Path]) -> str:
    """A digest of the names and contents of files: 16 hexadecimal digits.

    Of a file above 64 MB, its size, its first megabyte and 4096 evenly spread blocks count: a
    checkpoint of 16 GB takes a fraction of a second, and an optimizer's step changes them all.
    Raises OSError for a file that can't be read.
    """
    digest = blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as opened:
            if size <= _WHOLE:
                while part := opened.read(1 << 20):
                    digest.update(part)
                continue
            digest.update(opened.read(1 << 20))
            for number in range(_BLOCKS):
                opened.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()
