"""Passages in tantivy: what is stored, and which passages are the best."""

import json
import mmap
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .base import Hit, Passage
from .words import normalized

if TYPE_CHECKING:
    import tantivy

__all__ = ["LIST", "Stamp", "create", "document", "find", "left_out", "library", "load"]
__all__ += ["raise_unless_damage"]

LIST = "\0files"
"""Stands in the field `file` of the one document that lists the files."""
_MOST_TIED = 1_000
"""Passages that are read at most to put equal scores in order."""
_MOST_WORDS = 100
"""Of a query only so many different words are looked up."""
_LONGEST_WORD = 100
"""Bytes; words that have as many are neither indexed nor looked up."""
_FOOTER = struct.Struct("<II")
_MAGIC = 1337
"""A file of tantivy ends with its checksum in JSON, the length of that, and this number."""
Stamp = list[Any]
"""Of a file: size, mtime_ns, ctime_ns (None while it may still change) and the digest it had."""


def library() -> Any:
    """The module `tantivy`; raises MissingExtra where it is not installed."""
    try:
        import tantivy
    except ImportError:
        raise MissingExtra("Searching files", "search") from None
    return tantivy


def raise_unless_damage(error: BaseException) -> None:
    """Raise an error again unless it signals a damaged index: tantivy's panics are not Exceptions.

    It raises ValueErrors otherwise; LookupErrors and TypeErrors come from missing fields.
    """
    panic = type(error).__name__ == "PanicException"
    if not panic and not isinstance(error, ValueError | LookupError | TypeError | OSError):
        raise error


def _analyzer() -> "tantivy.TextAnalyzer":
    """How text becomes words: the same for passages and for queries."""
    lib = library()
    words = lib.TextAnalyzerBuilder(lib.Tokenizer.simple())
    for each in (
        lib.Filter.remove_long(_LONGEST_WORD),
        lib.Filter.lowercase(),
        lib.Filter.ascii_fold(),
        lib.Filter.stemmer("english"),
    ):
        words = words.filter(each)
    analyzer: tantivy.TextAnalyzer = words.build()
    return analyzer


def find(searcher: "tantivy.Searcher", schema: "tantivy.Schema", query: str, top: int) -> list[Hit]:
    """The best `top` passages that have any of the query's words, best first."""
    words = _words(query)[:_MOST_WORDS]
    if not words or searcher.num_docs < 2:
        return []
    return _best(searcher, schema, _any_of(schema, words), top)


def left_out(query: str) -> str:
    """The parts of a query that `find` does not look up, in a sentence; empty if there are none.

    >>> left_out("how to steep tea")
    ''
    """
    words = len(_words(query))
    said = []
    if words > _MOST_WORDS:
        said.append(f"only the first {_MOST_WORDS} of {words} different words were looked up")
    if any(
        len(word.encode()) >= _LONGEST_WORD for word in re.findall(r"[^\W_]+", normalized(query))
    ):
        said.append(f"words of {_LONGEST_WORD} letters or more were not looked up")
    return "; ".join(said)


def _words(query: str) -> list[str]:
    """The different words of a query, as the index has them."""
    return list(dict.fromkeys(_analyzer().analyze(normalized(query))))


def create(folder: Path) -> "tantivy.Index":
    """An index with nothing in it, in a folder that is made for it."""
    lib = library()
    folder.mkdir()
    schema = lib.SchemaBuilder()
    schema.add_text_field("file", tokenizer_name="raw", index_option="basic")
    schema.add_text_field("id", tokenizer_name="raw", index_option="basic")
    schema.add_text_field("words", tokenizer_name="words", index_option="freq")
    schema.add_bytes_field("passage", stored=True)
    index: tantivy.Index = lib.Index(schema.build(), path=str(folder))
    return _configured(index)


def document(file: str, place: str, passage: Passage) -> "tantivy.Document":
    """A passage as it is stored, with its file and its place in it, which no other passage has."""
    made: tantivy.Document = library().Document(
        file=file,
        id=passage.id,
        words=normalized(f"{passage.title}\n{passage.text}"),
        passage=json.dumps([passage.id, passage.title, passage.text, place]).encode(),
    )
    return made


def load(folder: Path) -> "tuple[tantivy.Index, dict[str, Stamp]]":
    """An index that is there, and the files it was made from.

    Reads all of it once: what else is wrong in a file would give wrong passages, and no error.
    """
    lib = library()
    if damaged := _damaged(folder):
        raise ValueError(f"wrong checksum: {', '.join(damaged)}")
    index = _configured(lib.Index.open(str(folder)))
    searcher = index.searcher()
    query = lib.Query.term_query(index.schema, "file", LIST, "basic")
    [(_, address)] = searcher.search(query, limit=1, count=False).hits
    known: dict[str, Stamp] = json.loads(_stored(searcher, address))
    return index, known


def _damaged(folder: Path) -> list[str]:
    """The files in use whose content does not agree with the checksum that tantivy gave them.

    What a killed writer left is not in use.
    """
    found = [path.name for path in folder.iterdir() if not stat.S_ISREG(path.lstat().st_mode)]
    if found:  # a pipe would be waited for
        return found
    for segment in json.loads((folder / "meta.json").read_bytes())["segments"]:
        id, deletes = segment["segment_id"].replace("-", ""), segment.get("deletes") or {}
        for path in folder.glob(f"{id}.*"):
            in_use = path.suffix != ".del" or path.name == f"{id}.{deletes.get('opstamp')}.del"
            if in_use and not _is_whole(path):
                found.append(path.name)
    return found


def _is_whole(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        length, magic = _FOOTER.unpack_from(data, len(data) - _FOOTER.size)
        end = len(data) - _FOOTER.size - length
        if magic != _MAGIC or end < 0:
            return False
        footer = json.loads(data[end : -_FOOTER.size])
        with memoryview(data) as view, view[:end] as body:
            return bool(zlib.crc32(body) == footer["crc"])


def _configured(index: "tantivy.Index") -> "tantivy.Index":
    index.register_tokenizer("words", _analyzer())
    index.config_reader("manual")  # no thread that watches the folder
    return index


def _any_of(schema: "tantivy.Schema", words: list[str]) -> "tantivy.Query":
    lib = library()
    query: tantivy.Query = lib.Query.boolean_query(
        [(lib.Occur.Should, lib.Query.term_query(schema, "words", word, "freq")) for word in words]
    )
    return query


def _best(
    searcher: "tantivy.Searcher", schema: "tantivy.Schema", query: "tantivy.Query", top: int
) -> list[Hit]:
    """The best passages, once each. Reads on while those at the cut are equally good.

    A title that is only the file's name does not make a passage another one.
    """
    top = min(top, searcher.num_docs)
    limit = 2 * top + 8
    while True:
        limit = min(limit, searcher.num_docs)
        found = searcher.search(query, limit=limit, count=False).hits
        hits = []
        for score, address in found:
            id, title, text, place = json.loads(_stored(searcher, address))
            hits.append((-round(score, 4), id, place, title, text))
        hits.sort()
        different: dict[tuple[str, str], Hit] = {}
        for score, id, place, title, text in hits:
            key = ("" if place.rpartition("#")[0] == title else title, text)
            if key not in different:
                if len(different) < top and _is_ambiguous(searcher, schema, id):
                    id = f"{id} ({place})"
                different[key] = Hit(Passage(id, title, text), -score)
        best = list(different.values())
        settled = len(best) > top and best[top - 1].score != -hits[-1][0]
        if settled or len(found) < limit or limit >= max(searcher.num_docs, 2):
            return best[:top]
        if limit > max(_MOST_TIED, 4 * top):
            return best[:top]
        limit *= 4


def _is_ambiguous(searcher: "tantivy.Searcher", schema: "tantivy.Schema", id: str) -> bool:
    """True if several passages have an id: rows of two files, say."""
    if searcher.doc_freq("id", id) < 2:  # which counts rows that were removed, too
        return False
    same = library().Query.term_query(schema, "id", id, "basic")
    return len(searcher.search(same, limit=2, count=False).hits) > 1


def _stored(searcher: "tantivy.Searcher", address: "tantivy.DocAddress") -> bytes:
    return bytes(searcher.doc(address).get_first("passage") or b"")
