"""Opening files that may be packed, with one kind of error."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from .errors import DataError

__all__ = ["PACKINGS", "open_unpacked", "peek", "reading"]

PACKINGS = (".gz", ".bz2", ".xz")
"""The endings that packed files usually have."""
_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_NOT_READ = {b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "packed with zstd"}


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the errors of reading a file, packed or not, into a DataError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"can't read {name}: {reason}") from error


def open_unpacked(file: IO[bytes], name: str) -> IO[bytes]:
    """The content of an open file, which may be packed, without UTF-8's byte order mark.

    Raises DataError for packings that are not read.
    """
    head = peek(file)
    for magic, what in _NOT_READ.items():
        if head.startswith(magic):
            raise DataError(f"{name} is {what}: unpack it first")
    for magic, unpack in _PACKED.items():
        if head.startswith(magic):
            file = cast(IO[bytes], unpack(file))
    if peek(file).startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    return file


def peek(file: IO[bytes], size: int = 8) -> bytes:
    """The next bytes of a file, `size` or fewer; they stay unread."""
    if isinstance(file, io.BytesIO):
        return bytes(file.getbuffer()[file.tell() :][:size])
    return cast(bytes, cast(Any, file).peek(size)[:size])
