"""The files of a corpus: which are read, which are left out and why, and their text."""

import io
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import DataError
from ..unpack import kind_of, open_unpacked, peek, reading

__all__ = ["LONGEST_LINE", "Remarks", "find_files", "read_lines"]

LONGEST_LINE = 16_000_000
"""Characters; a longer line is read as several."""
_HEAD_BYTES = 1_024
"""Bytes at a file's beginning, by which its encoding is told."""
_MOST_NAMED = 5
_STRAY = re.compile("[\udc80-\udcff]")
"""A byte that is not UTF-8, as `surrogateescape` decodes it."""
_STRAY_TEXT = {
    0xDC00 + byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)
}
_CHARSET = re.compile(
    rb"<meta[^>]{1,200}?charset\s*=\s*[\"']?((?:windows|iso|cp|koi8|gb|big5|euc|shift)[\w-]*)",
    re.IGNORECASE,
)


class Remarks:
    """Remarks, each with the names of the files that it is on.

    >>> remarks = Remarks()
    >>> for name in ("a.pdf", "b.pdf", "c.txt"):
    ...     remarks.add("empty" if name == "c.txt" else "ending in .pdf", name)
    >>> str(remarks)
    '2 files ending in .pdf (a.pdf, b.pdf); 1 file empty (c.txt)'
    """

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def add(self, remark: str, file: str) -> None:
        """Note a file."""
        self.files.setdefault(remark, []).append(file)

    def __str__(self) -> str:
        """How many files each remark is on, and the first of their names."""
        said = []
        for remark, names in self.files.items():
            shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if names[_MOST_NAMED:] else "")
            said.append(f"{len(names)} file{'s' if names[1:] else ''} {remark} ({shown})")
        return "; ".join(said)


def find_files(source: Path, kinds: Collection[str]) -> tuple[dict[str, Path], Remarks]:
    """The files to read, by the name their passages are cited with, in order; and the others.

    A folder is read with its subfolders. Hidden files and folders, links to folders and files of
    other kinds are left out, and so are links to files outside of it: a corpus that was fetched
    must not lead to its reader's own files. A snapshot in a cache of the Hugging Face hub is made
    of links to the `blobs` of its repository; those are followed. Raises `DataError` where there is
    nothing to read.
    """
    known = ", ".join(kinds)
    if source.is_file():
        if kind_of(source) not in kinds:
            raise DataError(
                f"{source} can't be searched: files may end in {known} (and .gz, .bz2, .xz)"
            )
        return {_cited(source.name): source}, Remarks()
    if not source.is_dir():
        raise DataError(f"there is no file or folder {source} to search")
    found: dict[str, Path] = {}
    left_out = Remarks()
    top = source.resolve()
    allowed = [top]
    for folder in (top, *top.parents):
        blobs = folder.parent / "blobs"
        if folder.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            allowed.append(blobs)

    def cited(path: Path) -> str:
        return _cited(path.relative_to(source).as_posix())

    def unreadable(error: OSError) -> None:
        left_out.add("in folders that can't be read", cited(Path(error.filename)) + "/")

    for name, subfolders, names in os.walk(source, onerror=unreadable):
        for each in list(subfolders):
            path = Path(name, each)
            if each.startswith(".") or path.is_symlink():
                why = "hidden" if each.startswith(".") else "behind links to folders"
                left_out.add(why, cited(path) + "/")
                subfolders.remove(each)
        for each in names:
            path = Path(name, each)
            if why := _unfit(path, kinds, allowed):
                left_out.add(why, cited(path))
            else:
                found[cited(path)] = path
    if not found:
        others = f"; left out: {left_out}" if left_out.files else ""
        raise DataError(f"{source} holds no file that can be searched: they end in {known}{others}")
    return dict(sorted(found.items())), left_out


def _unfit(path: Path, kinds: Collection[str], allowed: Collection[Path]) -> str:
    """The reason why a file is not read, or ""."""
    if path.name.startswith("."):
        return "hidden"
    if path.name.startswith("~$"):
        return "that an office program made as locks"
    if kind_of(path) not in kinds:
        return f"ending in {path.suffix.lower()}" if path.suffix else "without an ending"
    if path.is_symlink():
        target = path.resolve()
        if not any(target.is_relative_to(folder) for folder in allowed):
            return "that are links out of the folder"
    # A pipe or a device could be read for ever.
    return "" if path.is_file() else "that are broken links, pipes or devices"


def _cited(name: str) -> str:
    r"""A file's name as text; bytes that are not UTF-8 are written as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_lines(path: Path, name: str, remarks: Remarks) -> Iterator[str]:
    r"""The lines of a text file, which may be packed, each with its end, which is always `\n`.

    The byte order mark tells the encoding, or a page of HTML declares it; else it is UTF-8, where
    bytes that are not UTF-8 are read as Windows-1252 and remarked on. Raises `DataError` for a file
    that can't be read.
    """
    stray = 0
    with reading(name), path.open("rb") as opened:
        raw = open_unpacked(opened, name)
        head = peek(raw, _HEAD_BYTES)
        encoding: str = json.detect_encoding(head)
        declared = _CHARSET.search(head) if kind_of(path) in (".html", ".htm") else None
        if declared and encoding == "utf-8":
            encoding = declared[1].decode().lower()
            if encoding in ("iso-8859-1", "iso8859-1"):
                encoding = "cp1252"  # as browsers read it
        errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
        try:
            file = io.TextIOWrapper(raw, encoding, errors)
        except LookupError:  # a name that Python does not know
            file = io.TextIOWrapper(raw, "utf-8", "surrogateescape")
        while line := file.readline(LONGEST_LINE):
            if not line.isascii() and (here := len(_STRAY.findall(line))):
                stray += here
                line = line.translate(_STRAY_TEXT)
            yield line
    if stray:
        remarks.add("with bytes that are not UTF-8, read as Windows-1252", f"{name}: {stray:,}")
