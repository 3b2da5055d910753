"""Displayed objects as text: what a reader without a browser can take in of them, bounded.

Both backends call it in the process that runs cells (jupyter/kernel.py, sandbox/cells.py), so that
no page of HTML that code made up is ever read by the owner of that process. It imports the
standard library alone, as notebook.py does.
"""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import zip_longest
from typing import Any

from .notebook import cut, sendable

__all__ = ["SEEN", "bound_displays", "html_text"]

DISPLAY_BYTES = 8_000_000
_LABEL = re.compile(r"<[A-Za-z_][^\n<>]*>")
"""The text of an object that has none of its own, such as `<Figure size 640x480 with 1 Axes>`."""
SEEN = frozenset(
    ("image/png", "image/jpeg", "image/gif", "image/svg+xml", "text/html", "application/pdf")
)
"""The types that are kept beside the text (output.py)."""
_BLOCK = re.compile(
    "address|article|aside|blockquote|caption|d[dlt]|details|div|fieldset|figcaption|figure|footer|"
    "form|h[1-6r]|header|legend|li|main|nav|[ou]l|p|pre|section|summary|table|tbody|tfoot|thead|tr"
)
"""Tags that begin a line."""
_UNSEEN = re.compile("audio|canvas|iframe|object|script|style|template|video")
"""Tags whose content is not shown. A head is not among them: all text in it is in others or in its
title, and any other text or tag ends it, as `</head>` may be left out."""
_CLOSING = re.compile(f"</({_UNSEEN.pattern})(?=[\\s/>])", re.IGNORECASE)
_WIDEST = 100
"""Columns that one cell of a table may span."""


def bound_displays(shell: Any, characters: int) -> None:
    """Give displayed objects a text to read, and bound it, before they are sent."""
    format_object = shell.display_formatter.format

    def bounded(*args: Any, **options: Any) -> Any:
        data, metadata = format_object(*args, **options)
        for mime, value in list(data.items()):
            if not isinstance(value, str | bytes):
                _bound_json(data, mime)
            elif mime != "text/plain":
                if len(value) > DISPLAY_BYTES:
                    del data[mime]
                elif isinstance(value, str):
                    data[mime] = sendable(value)
        if len(data) > 1 or "text/plain" not in data:
            _add_text(data)
        if isinstance(plain := data.get("text/plain"), str):
            data["text/plain"] = cut(plain, characters)
        return data, metadata

    shell.display_formatter.format = bounded


def _bound_json(data: dict[str, Any], mime: str) -> None:
    """Make of a value what JSON can hold, or leave it out."""
    try:
        text = json.dumps(data[mime], default=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, circles, depth
        text = ""
    if 0 < len(text) <= DISPLAY_BYTES:
        data[mime] = json.loads(text)
    else:
        del data[mime]


def _add_text(data: dict[str, Any]) -> None:
    """Put the best text there is in the place of a missing text or of a mere label."""
    plain = data.get("text/plain", "")
    if plain and not (isinstance(plain, str) and _LABEL.fullmatch(plain)):
        return
    for mime in ("text/markdown", "text/latex", "text/html", "application/json"):
        value = data.get(mime)
        if mime == "application/json" and value is not None:
            value = json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and len(value) <= DISPLAY_BYTES:
            text = html_text(value) if mime == "text/html" else value
            if text.strip():
                data["text/plain"] = text
                return
    if not SEEN.isdisjoint(data):
        data.pop("text/plain", None)


def html_text(html: str) -> str:
    """The text of a page or a piece of HTML; tables in aligned columns, lists with hyphens.

    >>> print(html_text("<p>Two &lt; <b>three</b></p><table><tr><th>n<th>s<tr><td>1<td>a</table>"))
    Two < three
    n  s
    1  a
    """
    parser = _Text(html)
    parser.feed(html)
    parser.close()
    parser.end_table()
    lines = [line.rstrip() for line in "".join(parser.parts).split("\n")]
    return "\n".join(line for line in lines if line)


class _Text(HTMLParser):
    """Collects text; of a table, its rows first, laid out when it ends."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._open = Counter[str]()
        """Elements that are not shown."""
        self._closing = Counter(tag.lower() for tag in _CLOSING.findall(html))
        """End tags to come but for those of open elements."""
        self._in_title = False
        self._verbatim = self._tables = 0
        self._rows: list[list[str]] = []
        self._span = 1

    def set_cdata_mode(self, elem: str, **options: Any) -> None:
        """Read tags in a title, a frame or the like: newer Pythons take them for text."""
        if elem in ("script", "style"):
            super().set_cdata_mode(elem, **options)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "title" and not _UNSEEN.fullmatch(tag):
            super().handle_startendtag(tag, attrs)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title":
            self._in_title = True
        elif tag == "body" or _BLOCK.fullmatch(tag):
            self._in_title = False  # it was not closed
        if _UNSEEN.fullmatch(tag):
            # What is never closed hides nothing; the parser itself takes the rest for a script.
            if self._closing[tag] > 0 or tag in ("script", "style"):
                self._closing[tag] -= 1
                self._open[tag] += 1
        elif tag == "table":
            self._tables += 1
        elif self._tables and tag == "tr":
            self._end_cell()
            self._rows.append([])
        elif self._tables and tag in ("td", "th"):
            self._end_cell()
            span = dict(attrs).get("colspan") or ""
            self._span = min(int(span), _WIDEST) if span.isdecimal() and len(span) < 4 else 1
            self._rows = self._rows or [[]]
            self._rows[-1].append("")
        elif tag == "br":
            self._add("\n")
        if _BLOCK.fullmatch(tag):
            self._new_line()
        if tag == "li":
            self._add("- ")
        self._verbatim += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("head", "title"):
            self._in_title = False
        elif _UNSEEN.fullmatch(tag):
            (self._open if self._open[tag] else self._closing)[tag] -= 1
        self._verbatim -= tag == "pre" and self._verbatim > 0
        if tag == "table" and self._tables:
            self._tables -= 1
            if not self._tables:
                self.end_table()
        if _BLOCK.fullmatch(tag):
            self._new_line()

    def handle_data(self, data: str) -> None:
        if not self._in_title and not self._open.total():
            if not self._verbatim:
                data = re.sub(r"\s+", " ", data)
                data = data.lstrip() if self._at_line_start() else data
            self._add(data)

    def end_table(self) -> None:
        """Write the rows that were collected, each column as wide as its widest cell."""
        self._end_cell()
        rows, self._rows, self._tables = self._rows, [], 0
        cells = [[" ".join(cell.split()) for cell in row] for row in rows]
        columns = zip_longest(*cells, fillvalue="")
        widths = [max(map(len, column)) for column in columns]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
            self.parts.append("  ".join(padded).rstrip() + "\n")

    def _end_cell(self) -> None:
        if self._rows:
            self._rows[-1].extend([""] * (self._span - 1))
        self._span = 1

    def _add(self, text: str) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += text
        elif text:
            self.parts.append(text)

    def _at_line_start(self) -> bool:
        return not self.parts or self.parts[-1].endswith("\n")

    def _new_line(self) -> None:
        if self._rows and self._rows[-1]:
            self._add(" ")
        elif not self._at_line_start():
            self.parts.append("\n")
