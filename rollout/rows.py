"""Rows of a file or of stdin: JSON lines, a JSON list, CSV, Parquet, or lines of text."""

import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import PurePath
from typing import IO, Any, NamedTuple

from ..tools.errors import DataError, MissingExtra
from ..tools.unpack import kind_of, open_unpacked, peek, reading, table_rows
from .row_values import WrittenFloat

__all__ = ["Located", "read_rows", "with_integers"]


class Located(NamedTuple):
    """A row of a file: an object, or a line of text where the file holds plain questions."""

    where: str
    """The file and the line or row, for messages."""
    number: int
    """The line or row, from 1."""
    row: Any
    table: bool = False
    """True for a row of Parquet, whose column `data` may hold an object as JSON."""


def read_rows(source: str) -> Iterator[Located]:
    """The rows of a file, or of stdin where `source` is `-`, one at a time.

    The name says what a file is: `.jsonl`, `.json` (lines, a list of rows or one row), `.csv`,
    `.tsv` (both with a header), `.parquet`. Any other file holds JSON if it begins with `{` or with
    a list of objects, else a line of text each. It may be packed (gzip, bzip2, xz); text is UTF-8,
    or what its byte order mark says. Lines end with a line feed, whatever else Unicode calls a
    line's end: JSON may hold that as is.

    Floats of JSON keep their digits (`WrittenFloat`); NaN is None; columns of whole floats (pandas
    keeps integers as floats if one of them is missing) are written as integers.

    Raises DataError for a file that can't be read or has no row, MissingExtra without pyarrow.
    """
    name = "stdin" if source == "-" else source
    with reading(name), _open(source) as file:
        rows = with_integers(_rows_of(file, name))
        first = next(rows, None)
        if first is None:
            raise DataError(f"there are no questions in {name}")
        yield first
        yield from rows


# -- bytes and text ------------------------------------------------------------------------------

_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Other byte order marks; the longer ones come first."""


@contextmanager
def _open(source: str) -> Iterator[IO[bytes]]:
    """Open a file, or stdin, which stays open."""
    if source != "-":
        with open(source, "rb") as file:
            yield file
        return
    buffer: IO[bytes] = sys.stdin.buffer
    yield buffer if hasattr(buffer, "peek") else io.BytesIO(buffer.read())


@contextmanager
def _text(file: IO[bytes], name: str, newline: str) -> Iterator[IO[str]]:
    head = peek(file)
    encoding = next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in head:
        raise DataError(f"{name} is not text: it holds NUL bytes")
    text = io.TextIOWrapper(file, encoding, newline=newline)
    try:
        yield text
    finally:
        text.detach()


# -- forms ---------------------------------------------------------------------------------------


def _rows_of(file: IO[bytes], name: str) -> Iterator[Located]:
    file = open_unpacked(file, name)
    ending = kind_of(PurePath(name))
    if peek(file).startswith(b"PAR1") or ending == ".parquet":
        yield from _parquet(file, name)
    elif ending in (".csv", ".tsv"):
        with _text(file, name, "") as text:
            yield from _csv(text, name, "\t" if ending == ".tsv" else ",")
    else:
        with _text(file, name, "\n") as text:
            yield from _lines_or_list(text, name, ending in (".jsonl", ".ndjson", ".json"))


def _lines_or_list(text: IO[str], name: str, is_json: bool) -> Iterator[Located]:
    """The rows of JSON lines or of one JSON document, else the lines that are not blank."""
    numbered = ((number, line.strip()) for number, line in enumerate(text, 1))
    lines: Iterator[tuple[int, str]] = ((number, line) for number, line in numbered if line)
    first = next(lines, None)
    if first is None:
        return
    lines = chain([first], lines)
    if first[1][0] == "[" or (first[1][0] == "{" and not _is_json(first[1])):
        kept = list(lines)
        listed = _document([line for _, line in kept], name, is_json)
        if listed is not None:
            for number, row in enumerate(listed, 1):
                yield Located(f"{name}, row {number}", number, row)
            return
        lines = iter(kept)
    is_json = is_json or first[1][0] == "{"
    for number, line in lines:
        where = f"{name}, line {number}"
        yield Located(where, number, _parse(line, where) if is_json else line)


def _document(lines: list[str], name: str, is_json: bool) -> list[Any] | None:
    """The rows of one JSON list, or the one row of an object; None for lines that are apart."""
    text = "\n".join(lines)
    if text[0] == "{":
        return [_parse(text, name)] if _is_json(text) else None
    if not is_json and not text[1:].lstrip().startswith("{"):
        return None  # questions, of which the first has a bracket
    if _is_json(lines[0]) and not _is_json(text):
        return None  # a list a line
    rows: list[Any] = _parse(text, name)
    return rows if not rows or any(isinstance(row, dict) for row in rows) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(
            text,
            parse_float=WrittenFloat,
            parse_constant=lambda name: None if name == "NaN" else float(name),
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return made


def _csv(text: IO[str], name: str, separator: str) -> Iterator[Located]:
    header = text.readline()
    if separator not in header:
        separator = next((each for each in ";\t" if each in header), separator)
    rows = table_rows(chain([header], text), name, separator, strict=True)
    columns = next(rows, [])
    if len({*columns}) < len(columns):
        raise DataError(f"{name} has two columns of one name: {', '.join(columns)}")
    for number, cells in enumerate(rows, 1):
        where = f"{name}, row {number}"
        if len(cells) != len(columns):
            raise DataError(f"{where} has more or fewer columns than the header")
        row = {
            column: None if cell in ("NaN", "nan") else cell
            for column, cell in zip(columns, cells, strict=True)
            if column  # pandas' index has none
        }
        yield Located(where, number, row)


_INDEX = re.compile(r"__index_level_\d+__")
"""Columns in which pandas keeps the index of a table."""


def _parquet(file: IO[bytes], name: str) -> Iterator[Located]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    number = 0
    try:
        whole = file if file.seekable() else io.BytesIO(file.read())
        with pyarrow.parquet.ParquetFile(whole) as table:
            schema = table.schema_arrow
            columns = [each for each in schema.names if not _INDEX.fullmatch(each)]
            kinds = {each: schema.field(each).type for each in columns}
            floats = [each for each in columns if re.search("float|double", str(kinds[each]))]
            short = [each for each in floats if pyarrow.types.is_float32(kinds[each])]
            for batch in table.iter_batches(1024, columns=columns):
                for each in short:  # 2.3 is 2.3, not 2.299999952316284
                    text = batch.column(each).cast(pyarrow.string())
                    batch = batch.set_column(
                        batch.schema.get_field_index(each), each, text.cast(pyarrow.float64())
                    )
                for row in batch.to_pylist():
                    number += 1
                    row |= {each: _without_nan(row[each]) for each in floats}
                    yield Located(f"{name}, row {number}", number, row, table=True)
    except pyarrow.ArrowException as error:
        raise DataError(f"can't read {name}: {str(error).partition(chr(10))[0]}") from error


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and value != value else value


# -- integers that became floats -----------------------------------------------------------------

_LOOKED_AT = 100
"""Rows by which it is decided whether a column holds integers."""
_WHOLE = re.compile(r"-?\d+\.0")


def with_integers(rows: Iterable[Located]) -> Iterator[Located]:
    """The rows, where each float of a column of whole floats is written without `.0`."""
    rows = iter(rows)
    first = list(islice(rows, _LOOKED_AT))
    whole, others = set[tuple[str, ...]](), set[tuple[str, ...]]()
    for located in first:
        for column, value in _floats(located.row):
            if value != value:  # NaN, where a number is missing
                continue
            (whole if _WHOLE.fullmatch(_written(value)) else others).add(column)
    whole -= others
    for located in chain(first, rows):
        yield located._replace(row=_marked(located.row, whole)) if whole else located


def _written(value: float) -> str:
    return value.text if isinstance(value, WrittenFloat) else repr(value)


def _floats(value: Any, column: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """The floats of a row, of objects in it and of lists in these, with the names of their keys."""
    if isinstance(value, float):
        yield column, value
    elif isinstance(value, dict) and len(column) < 3:
        for name, each in value.items():
            yield from _floats(each, (*column, name))
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, float):
                yield column, each


def _marked(value: Any, whole: set[tuple[str, ...]], column: tuple[str, ...] = ()) -> Any:
    if isinstance(value, float):
        text = _written(value)
        found = column in whole and _WHOLE.fullmatch(text)
        return WrittenFloat(text.removesuffix(".0"), float(value)) if found else value
    if isinstance(value, dict) and len(column) < 3:
        return {name: _marked(each, whole, (*column, name)) for name, each in value.items()}
    if isinstance(value, list) and column in whole:
        return [_marked(each, whole, column) if isinstance(each, float) else each for each in value]
    return value
