"""Files that may be packed: their kind, their content, rows of tables, and one kind of error."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import IO, Any, cast

from .errors import DataError

__all__ = ["PACKINGS", "kind_of", "open_unpacked", "peek", "reading", "table_rows"]

PACKINGS = (".gz", ".bz2", ".xz")
"""The endings that packed files usually have."""
_PACKED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_LONGEST_CELL = 16_000_000
"""Characters of a cell of CSV."""
_NOT_READ = {b"PK\x03\x04": "a zip archive", b"\x28\xb5\x2f\xfd": "packed with zstd"}


def kind_of(path: PurePath) -> str:
    """The ending that tells a file's kind, in lower case: the one before `.gz` and the like.

    >>> kind_of(PurePath("a.JSONL.gz")), kind_of(PurePath("notes.md")), kind_of(PurePath("README"))
    ('.jsonl', '.md', '')
    """
    path = path.with_suffix("") if path.suffix.lower() in PACKINGS else path
    return path.suffix.lower()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn the errors of reading a file, packed or not, into a DataError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
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


def table_rows(
    lines: Iterable[str], name: str, delimiter: str, *, strict: bool = False
) -> Iterator[list[str]]:
    """The rows of CSV that are not blank; with `strict`, quotes must be as in RFC 4180.

    Raises DataError, naming the line, for a cell above 16 million characters and for bad CSV.
    """
    # One limit holds for the whole process, 131,072 at first. Others may have raised it, so it
    # can't tell which cells are too long; it is never lowered, as others may need theirs.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    table = csv.reader(lines, delimiter=delimiter, strict=strict)
    try:
        for row in table:
            if any(len(cell) > _LONGEST_CELL for cell in row):
                raise csv.Error(f"field larger than field limit ({_LONGEST_CELL})")
            if row:
                yield row
    except csv.Error as error:
        raise DataError(f"can't read {name}, line {table.line_num}: {error}") from error
