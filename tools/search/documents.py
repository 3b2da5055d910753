"""Files become passages: the rows of data files, and pieces of documents with titles."""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtra
from ..unpack import kind_of, table_rows
from .base import Passage
from .headings import Heading, in_html, in_markdown, in_rst
from .sources import LONGEST_LINE, Remarks, read_lines

__all__ = ["ENDINGS", "Placed", "as_passage", "passages", "read_passages"]

_LONGEST_PARAGRAPH = 65_536
"""Characters held before a paragraph that does not end is cut into passages."""
_LONGEST_DOCUMENT = 256_000_000
"""Characters of a file that is read as a whole."""
_LONGEST_TITLE = 200
"""Characters of a first line that may be a title: as many as a result shows of one."""
_IDS = ("id", "_id", "pid", "docid", "doc_id")
_TEXTS = ("text", "contents", "content", "passage", "segment", "body")

Placed = tuple[str, Passage]
"""A passage after its place, which no other passage has: `corpus.jsonl:7`, `guide.md#2`."""


def read_passages(path: Path, name: str, characters: int, remarks: Remarks) -> Iterator[Placed]:
    """The passages of a file that is cited as `name`; see `passages`.

    Anything odd about the file is added to `remarks`. Raises `DataError` for a file that can't be
    read, `MissingExtra` for Parquet without pyarrow.
    """
    if kind_of(path) == ".parquet":
        found = _from_parquet(name, path)
    else:
        found = passages(name, read_lines(path, name, remarks), characters, remarks)
    first = next(found, None)
    if first is None:
        remarks.add("without any text", name)
        return
    yield first
    yield from found


def passages(
    name: str, lines: Iterable[str], characters: int, remarks: Remarks
) -> Iterator[Placed]:
    r"""The passages of one file, given its lines.

    A row of JSON or of a table is a passage as it is. Documents are cut at the ends of paragraphs
    into pieces of at most `characters`, with ids like `guide.md#3`; a piece of Markdown,
    reStructuredText or HTML is titled with its headings, a piece of text with the file's name.
    Raises `DataError` for a bad row.

    >>> guide = ["# Oven\n", "Bake at 180 C.\n", "\n", "## Care\n", "Wipe it.\n"]
    >>> for place, passage in passages("guide.md", guide, 500, Remarks()):
    ...     print(place, "|", passage.title, "|", passage.text)
    guide.md#1 | Oven | Bake at 180 C.
    guide.md#2 | Oven > Care | Wipe it.
    """
    return _READERS[kind_of(Path(name))](name, lines, characters, remarks)


def as_passage(row: object, without_id: str = "") -> Passage | None:
    r"""A passage from JSON: a text, or an object with `text` (or `contents`, `content`, ...).

    `contents` without its own title may begin with the title: in quotes on its own line, as in
    Search-R1's corpora, or before a blank line. None if there is no text.

    >>> as_passage({"id": 7, "contents": '"Oslo"\nA city.'})
    Passage(id='7', title='Oslo', text='A city.')
    """
    if isinstance(row, str):
        return Passage(without_id, "", _clean(row))
    if not isinstance(row, dict):
        return None
    texts = [row[key] for key in _TEXTS if isinstance(row.get(key), str)]
    if not texts:
        return None
    text = next((each for each in texts if each.strip()), "")
    id = next((row[key] for key in _IDS if row.get(key) not in (None, "")), without_id)
    title = _as_text(row.get("title"))
    if not title and "text" not in row and "\n" in text:
        head, _, rest = text.partition("\n")
        quoted = re.fullmatch(r'\s*"(.+)"\s*', head)
        if len(head) <= _LONGEST_TITLE and (quoted or not rest.partition("\n")[0].strip()):
            title, text = (quoted[1] if quoted else head.strip()), rest.lstrip("\r\n")
    return Passage(_as_text(id), _clean(title), _clean(text))


def _row(name: str, number: int, row: object, unit: str) -> Placed:
    place = f"{name}:{number}"
    passage = as_passage(row, place) if isinstance(row, dict) else None
    if passage is None:
        raise DataError(
            f'{name}, {unit} {number}, is not a passage: an object with a "text" is expected'
        )
    return place, passage


def _uncut(name: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines; raises DataError at one that `read_lines` cut, as it would make two rows."""
    for number, line in enumerate(lines, start=1):
        if len(line) >= LONGEST_LINE and not line.endswith("\n"):
            raise DataError(f"{name}, line {number}, is longer than {LONGEST_LINE:,} characters")
        yield line


def _from_jsonl(
    name: str, lines: Iterable[str], characters: int, remarks: Remarks
) -> Iterator[Placed]:
    for number, line in enumerate(_uncut(name, lines), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
            raise DataError(f"{name}, line {number}, is not JSON{reason}") from None
        yield _row(name, number, row, "line")


def _from_json(
    name: str, lines: Iterable[str], characters: int, remarks: Remarks
) -> Iterator[Placed]:
    """A list of rows, one row, or JSON lines; any other JSON is read as text."""
    text = _whole(name, lines)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        head = text.lstrip().partition("\n")[0].rstrip()
        if head.startswith("{") and head.endswith("}"):
            yield from _from_jsonl(name, io.StringIO(text), characters, remarks)
            return
        remarks.add("that are not JSON, read as text", name)
    else:
        rows = value if isinstance(value, list) else [value]
        first = rows[0] if rows and isinstance(rows[0], dict) else {}
        # One object is a row if it looks like one: the rest of another would not be searched.
        if as_passage(first) and (value is rows or not {"title", *_IDS}.isdisjoint(first)):
            for number, row in enumerate(rows, start=1):
                yield _row(name, number, row, "row")
            return
        text = _clean(json.dumps(value, ensure_ascii=False, indent=1))  # no escapes of letters
    yield from _from_text(name, io.StringIO(text), characters, remarks)


def _from_table(
    name: str, lines: Iterable[str], characters: int, remarks: Remarks
) -> Iterator[Placed]:
    """A table whose header names a text (`id`, `title`, `text`): its rows.

    Lines without a header whose first column is an id are read as MS MARCO's: an id, perhaps an
    address and a title, and the text, between tabs. Any other table is read as text.
    """
    lines = iter(lines)
    first = next(lines, "")
    lines = chain([first], lines)
    delimiter = "\t" if kind_of(Path(name)) == ".tsv" else ","
    cells = first.rstrip("\n").split(delimiter)
    header = next(table_rows([first], name, delimiter), [])
    columns = [each.strip().lower() for each in header]
    if not set(columns).isdisjoint(_TEXTS):
        rows = table_rows(_uncut(name, lines), name, delimiter)
        next(rows)
    elif delimiter == "\t" and 2 <= len(cells) <= 4 and re.fullmatch(r"[A-Za-z_]*\d+", cells[0]):
        columns = {2: ["id", "text"], 3: ["id", "title", "text"]}.get(
            len(cells), ["id", "url", "title", "text"]
        )
        # quotes mean nothing here
        rows = (line.rstrip("\n").split("\t") for line in _uncut(name, lines))
    else:
        yield from _from_text(name, lines, characters, remarks)
        return
    for number, row in enumerate(rows, start=1):
        if len(row) != len(columns):
            raise DataError(f"{name}, row {number}, has {len(row)} columns and not {len(columns)}")
        yield _row(name, number, dict(zip(columns, row, strict=True)), "row")


def _from_parquet(name: str, path: Path) -> Iterator[Placed]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("Parquet", "parquet") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [each for each in file.schema_arrow.names if each in (*_IDS, "title", *_TEXTS)]
            if set(names).isdisjoint(_TEXTS):
                raise DataError(
                    f"{name} has no column of texts: rename one to text, or take the file away"
                )
            number = 0
            for batch in file.iter_batches(1024, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(name, number, row, "row")
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DataError(f"can't read {name}: {reason}") from error


def _from_text(
    name: str, lines: Iterable[str], characters: int, remarks: Remarks
) -> Iterator[Placed]:
    for number, piece in enumerate(_pieces(_paragraphs(lines), characters), start=1):
        place = f"{name}#{number}"
        yield place, Passage(place, name, piece)


def _from_sections(
    read: Callable[[str], tuple[str, list[Heading]]],
    name: str,
    lines: Iterable[str],
    characters: int,
    remarks: Remarks,
) -> Iterator[Placed]:
    """Pieces of the sections that `read` finds, each titled with the headings above it.

    A heading without a text, and without a section below it, is a passage without a text.
    """
    text, headings = read(_whole(name, lines))
    lines = list(io.StringIO(text))
    above: list[Heading] = []
    number = 0
    start = Heading(0, 0, -1, "")
    end = Heading(len(lines), len(lines), -1, "")
    for heading, following in pairwise([start, *headings, end]):
        above = [each for each in above if each.level < heading.level] + [heading]
        title = " > ".join(dict.fromkeys(each.title for each in above if each.title))
        section = lines[heading.after : following.first]
        pieces = list(_pieces(_paragraphs(section), characters))
        if not pieces and heading.title and following.level <= heading.level:
            pieces = [""]
        for piece in pieces:
            number += 1
            place = f"{name}#{number}"
            yield place, Passage(place, title or name, piece)


_READERS: dict[str, Callable[[str, Iterable[str], int, Remarks], Iterator[Placed]]] = {
    ".jsonl": _from_jsonl,
    ".ndjson": _from_jsonl,
    ".json": _from_json,
    ".csv": _from_table,
    ".tsv": _from_table,
    ".md": partial(_from_sections, in_markdown),
    ".markdown": partial(_from_sections, in_markdown),
    ".rst": partial(_from_sections, in_rst),
    ".html": partial(_from_sections, in_html),
    ".htm": partial(_from_sections, in_html),
    ".txt": _from_text,
}
"""How a file is read, by how its name ends."""
ENDINGS = (*_READERS, ".parquet")


def _whole(name: str, lines: Iterable[str]) -> str:
    held = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size > _LONGEST_DOCUMENT:
            raise DataError(
                f"{name} is longer than {_LONGEST_DOCUMENT:,} characters: split it, or write JSON "
                "lines"
            )
    return "".join(held)


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
    if value is None:
        return ""
    return _clean(value if isinstance(value, str) else json.dumps(value, default=str))


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON and file names can carry and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")
