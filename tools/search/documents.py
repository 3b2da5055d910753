"""Files become passages: the rows of JSONL, and pieces of text and Markdown with titles."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .base import Passage

__all__ = ["SUFFIXES", "as_passage", "find_files", "lines", "passages"]

_LONGEST_LINE = 16_000_000
"""Bytes; a longer line is read as several."""
_LONGEST_PARAGRAPH = 65_536
"""Characters held before a paragraph that does not end is cut into passages."""

_log = logging.getLogger(__name__)
_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)$")


def find_files(source: Path) -> dict[str, Path]:
    """The files to read, by the name their passages are cited with, in the order of the names.

    A folder is read with its subfolders; hidden files, links to folders and files of other kinds
    are left out, and so are links to files outside of it, with a warning: a corpus that was fetched
    must not lead to its reader's own files. Raises `DataError` where there is nothing to read.
    """
    kinds = ", ".join(SUFFIXES)
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise DataError(f"{source} can't be searched: files may end in {kinds}")
        return {source.name: source}
    if not source.is_dir():
        raise DataError(f"there is no file or folder {source} to search")
    found: dict[str, Path] = {}
    outside: list[str] = []
    top = source.resolve()
    for folder, subfolders, names in os.walk(source):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            fits = path.suffix.lower() in SUFFIXES and not name.startswith(".")
            if fits and path.is_file():  # not a pipe or a device, which could be read for ever
                cited = _clean(path.relative_to(source).as_posix())
                if path.is_symlink() and not path.resolve().is_relative_to(top):
                    outside.append(cited)
                else:
                    found[cited] = path
    if outside:
        _log.warning(
            "%d links lead out of %s and are not searched: %s",
            len(outside),
            source,
            ", ".join(outside[:5]),
        )
    if not found:
        linked = f"; {len(outside)} links lead out of it: copy those files" if outside else ""
        raise DataError(f"{source} holds no file that can be searched: they end in {kinds}{linked}")
    return dict(sorted(found.items()))


def lines(path: Path, seen: Callable[[bytes], object]) -> Iterator[str]:
    """The lines of a file, each with its end; `seen` gets the bytes as they were read.

    What is not UTF-8 is read as the replacement character.
    """
    with path.open("rb") as file:
        first = True
        while line := file.readline(_LONGEST_LINE):
            seen(line)
            yield line.decode("utf-8-sig" if first else "utf-8", errors="replace")
            first = False


def passages(name: str, read: Iterable[str], characters: int) -> Iterator[Passage]:
    r"""The passages of one file, given its lines.

    A row of JSONL is a passage as it is. Text and Markdown are cut at the ends of paragraphs
    into pieces of at most `characters`, with ids like `guide.md#3`; a piece of Markdown is titled
    with its headings, a piece of text with the file's name. Raises `DataError` for a bad row.

    >>> guide = ["# Oven\n", "Bake at 180 C.\n", "\n", "## Care\n", "Wipe it.\n"]
    >>> for passage in passages("guide.md", guide, 500):
    ...     print(passage.id, "|", passage.title, "|", passage.text)
    guide.md#1 | Oven | Bake at 180 C.
    guide.md#2 | Oven > Care | Wipe it.
    """
    return SUFFIXES[Path(name).suffix.lower()](name, read, characters)


def as_passage(row: object, without_id: str = "") -> Passage | None:
    r"""A passage from JSON: a text, or an object with `text` (or `content`, or `contents`).

    `contents` without its own title may begin with the title on its own line, in quotes
    or not, as in Search-R1's corpora. None if there is no text.

    >>> as_passage({"id": 7, "contents": '"Oslo"\nA city.'})
    Passage(id='7', title='Oslo', text='A city.')
    """
    if isinstance(row, str):
        return Passage(without_id, "", _clean(row))
    if not isinstance(row, dict):
        return None
    texts = (row.get(key) for key in ("text", "contents", "content"))
    text = next((each for each in texts if isinstance(each, str)), None)
    if text is None:
        return None
    id = next((row[key] for key in ("id", "_id") if row.get(key) is not None), without_id)
    title = _as_text(row.get("title"))
    if not title and "text" not in row and "\n" in text:
        head, _, text = text.partition("\n")
        title = head.strip().strip('"')
    return Passage(_as_text(id), _clean(title), _clean(text))


def _from_jsonl(name: str, read: Iterable[str], characters: int) -> Iterator[Passage]:
    for number, line in enumerate(read, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number},"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{where} is not JSON{reason}") from None
        passage = as_passage(row, f"{name}:{number}") if isinstance(row, dict) else None
        if passage is None:
            raise DataError(f'{where} is not a passage: an object with a "text" is expected')
        yield passage


def _from_text(name: str, read: Iterable[str], characters: int) -> Iterator[Passage]:
    for number, piece in enumerate(_pieces(_paragraphs(read), characters), start=1):
        yield Passage(f"{name}#{number}", name, piece)


def _from_markdown(name: str, read: Iterable[str], characters: int) -> Iterator[Passage]:
    number = 0
    for title, section in _sections(read):
        for piece in _pieces(_paragraphs(section), characters):
            number += 1
            yield Passage(f"{name}#{number}", title or name, piece)


SUFFIXES: dict[str, Callable[[str, Iterable[str], int], Iterator[Passage]]] = {
    ".jsonl": _from_jsonl,
    ".md": _from_markdown,
    ".markdown": _from_markdown,
    ".txt": _from_text,
}
"""How a file is read, by how its name ends."""


def _sections(read: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each section's title, made of the headings above it, and its lines."""
    headings: list[tuple[int, str]] = []
    section: list[str] = []
    fence = ""
    for line in read:
        fenced = _FENCE.match(line)
        if fenced and fenced[1] == (fence or fenced[1]):
            fence = "" if fence else fenced[1]
        heading = None if fence or fenced else _HEADING.match(line.rstrip())
        if heading is None:
            section.append(line)
            continue
        yield " > ".join(text for _, text in headings), section
        level = len(heading[1])
        title = heading[2].rstrip("#").rstrip(" \t")
        headings = [each for each in headings if each[0] < level] + [(level, title)]
        section = []
    yield " > ".join(text for _, text in headings), section


def _paragraphs(read: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for line in read:
        blank = not line.strip()
        if not blank:
            held.append(line)
            size += len(line)
        if held and (blank or size > _LONGEST_PARAGRAPH):
            yield "".join(held).strip("\r\n")
            held, size = [], 0
    if held:
        yield "".join(held).strip("\r\n")


def _pieces(paragraphs: Iterable[str], characters: int) -> Iterator[str]:
    """Paragraphs put together, or cut, to pieces of at most `characters`."""
    held = ""
    for paragraph in paragraphs:
        for part in _parts(paragraph, characters):
            if held and len(held) + 2 + len(part) > characters:
                yield held
                held = ""
            held = f"{held}\n\n{part}" if held else part
    if held:
        yield held


def _parts(paragraph: str, characters: int) -> Iterator[str]:
    """A paragraph cut at the ends of sentences, or else at spaces, or else anywhere."""
    start = 0
    while len(paragraph) - start > characters:
        end = start + characters
        middle = start + characters // 2
        sentence = max(paragraph.rfind(mark, middle, end) for mark in (". ", "? ", "! ", ".\n"))
        space = max(paragraph.rfind(mark, middle, end) for mark in (" ", "\n"))
        cut = sentence + 1 if sentence >= 0 else space if space >= 0 else end
        if part := paragraph[start:cut].strip():
            yield part
        start = cut
    rest = paragraph[start:]
    if rest := rest.strip() if start else rest.strip("\r\n"):
        yield rest


def _as_text(value: Any) -> str:
    return "" if value is None else _clean(value if isinstance(value, str) else json.dumps(value))


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON and file names can carry and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")
