"""Passages in tantivy: how text becomes words, what is stored, which passages are the best."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from .base import Hit, Passage

if TYPE_CHECKING:
    import tantivy

__all__ = ["LIST", "Stamp", "create", "find", "library", "load", "raise_unless_damage", "spaced"]

LIST = "\0files"
"""Stands in the field `file` of the one document that lists the files."""
_MOST_TIED = 1_000
"""Passages that are read at most to put equal scores in order."""
_MOST_WORDS = 100
"""Of a query only so many different words are looked up."""
_NO_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")
"""Characters of scripts in which words are not set apart: each is taken as a word."""
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
    """Raise an error again, unless it comes of a damaged index: tantivy's panics are no Exceptions.

    What it raises otherwise are ValueErrors; LookupErrors and TypeErrors come of what is missing.
    """
    panic = type(error).__name__ == "PanicException"
    if not panic and not isinstance(error, ValueError | LookupError | TypeError | OSError):
        raise error


def _analyzer() -> "tantivy.TextAnalyzer":
    """How text becomes words: the same for passages and for queries."""
    lib = library()
    words = lib.TextAnalyzerBuilder(lib.Tokenizer.simple())
    for each in (
        lib.Filter.remove_long(100),
        lib.Filter.lowercase(),
        lib.Filter.ascii_fold(),
        lib.Filter.stemmer("english"),
    ):
        words = words.filter(each)
    analyzer: tantivy.TextAnalyzer = words.build()
    return analyzer


def find(searcher: "tantivy.Searcher", schema: "tantivy.Schema", query: str, top: int) -> list[Hit]:
    """The best `top` passages that have any of the query's words, best first."""
    words = list(dict.fromkeys(_analyzer().analyze(spaced(query))))[:_MOST_WORDS]
    if not words or searcher.num_docs < 2:
        return []
    return _best(searcher, _any_of(schema, words), top)


def spaced(text: str) -> str:
    """As tantivy's analyzer must get it: valid, and with spaces where it would see none."""
    if text.isascii():
        return text
    return _NO_SPACES.sub(r" \1 ", text.encode("utf-8", "replace").decode("utf-8"))


def create(folder: Path) -> "tantivy.Index":
    """An index with nothing in it, in a folder that is made for it."""
    lib = library()
    folder.mkdir()
    schema = lib.SchemaBuilder()
    schema.add_text_field("file", tokenizer_name="raw", index_option="basic")
    schema.add_text_field("words", tokenizer_name="words", index_option="freq")
    schema.add_bytes_field("passage", stored=True)
    index: tantivy.Index = lib.Index(schema.build(), path=str(folder))
    return _configured(index)


def load(folder: Path) -> "tuple[tantivy.Index, dict[str, Stamp]]":
    """An index that is there, and the files it was made from."""
    lib = library()
    index = _configured(lib.Index.open(str(folder)))
    searcher = index.searcher()
    query = lib.Query.term_query(index.schema, "file", LIST, "basic")
    [(_, address)] = searcher.search(query, limit=1, count=False).hits
    known: dict[str, Stamp] = json.loads(_stored(searcher, address))
    return index, known


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


def _best(searcher: "tantivy.Searcher", query: "tantivy.Query", top: int) -> list[Hit]:
    """The best passages, once each. Reads on while those at the cut are equally good."""
    top = min(top, searcher.num_docs)
    limit = 2 * top + 8
    while True:
        limit = min(limit, searcher.num_docs)
        found = searcher.search(query, limit=limit, count=False).hits
        hits = [Hit(_passage(searcher, address), round(score, 4)) for score, address in found]
        hits.sort(key=lambda hit: (-(hit.score or 0.0), hit.passage.id))
        texts: dict[tuple[str, str], Hit] = {}
        for hit in hits:
            texts.setdefault((hit.passage.title, hit.passage.text), hit)
        best = list(texts.values())
        settled = len(best) > top and best[top - 1].score != hits[-1].score
        if settled or len(found) < limit or limit >= max(searcher.num_docs, 2):
            return best[:top]
        if limit > max(_MOST_TIED, 4 * top):
            return best[:top]
        limit *= 4


def _passage(searcher: "tantivy.Searcher", address: "tantivy.DocAddress") -> Passage:
    id, title, text = json.loads(_stored(searcher, address))
    return Passage(id, title, text)


def _stored(searcher: "tantivy.Searcher", address: "tantivy.DocAddress") -> bytes:
    return bytes(searcher.doc(address).get_first("passage") or b"")
