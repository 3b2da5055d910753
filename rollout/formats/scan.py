"""Finding tagged blocks in what a policy wrote, with all the ways it can be written wrongly."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from .alike import alike

__all__ = [
    "Marks",
    "Scan",
    "boxed",
    "in_python_string",
    "in_sql_string",
    "last_block",
    "scan",
    "unfenced",
    "unlabelled",
    "without_thoughts",
]

# So many closing tags may stand in strings of one block before the next one counts. Each is looked
# at from the start of the block, so this also bounds the work.
FALSE_CLOSES = 32


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks that open and close a call, those that open and close a result, and the one that
    opens an answer, if the format has one.
    """

    call: re.Pattern[str]
    call_end: re.Pattern[str]
    result: re.Pattern[str]
    result_end: re.Pattern[str]
    answer: re.Pattern[str] | None = None

    @classmethod
    def tags(cls, call: str, result: str, answer: str) -> Self:
        """The marks `<call>`, `</call>`, `<result>`, `</result>` and `<answer>`; a result's marks
        also match what looks like them (`alike`).
        """
        patterns = (
            *map(re.escape, (f"<{call}>", f"</{call}>")),
            *map(alike, (f"<{result}>", f"</{result}>")),
            re.escape(f"<{answer}>"),
        )
        return cls(*map(re.compile, patterns))


@dataclass(slots=True)
class Scan:
    """A text cut into blocks.

    `calls` are what is between the marks of each call, `leads` what is before it, from the
    end of the block before. `plain` is all that is neither a call nor a forged result. `pending`:
    a closing mark is inside a string, so the block continues. `unclosed`: a call was opened and
    not closed.
    """

    calls: list[str] = field(default_factory=list)
    leads: list[str] = field(default_factory=list)
    plain: str = ""
    forged: bool = False
    pending: bool = False
    unclosed: bool = False


def scan(
    text: str,
    marks: Marks,
    *,
    final: bool,
    in_string: Callable[[str], bool] = lambda body: False,
) -> Scan:
    """Cut text into calls, forged results and the rest, read from left to right.

    `final` says that nothing follows: then a closing mark in a string closes after all. A forged
    result ends at its closing mark, at the next call or at the end. Each block leaves a line break
    in `plain`, so that what stood around it can't become a tag.
    """
    found = Scan()
    plain: list[str] = []
    position = 0
    search = _Search(text)
    while match := search.first((marks.call, marks.result), position):
        lead = text[position : match.start()]
        plain.append(lead)
        position = match.end()
        if match.re is marks.result:
            found.forged = True
            end = search.first((marks.result_end, marks.call), position)
            position = len(text) if end is None else end.start()
            if end is not None and end.re is marks.result_end:
                position = end.end()
            continue
        close, first = search.close(marks.call_end, position, in_string)
        if close is None and first is not None:
            if not final:
                found.pending = True
                return found
            close = first
        if close is None:  # what follows is code, up to an answer or a result in the policy's words
            found.unclosed = True
            if fence := _OPEN_FENCE.match(text, position):
                fence = _CLOSING_FENCE.search(text, fence.end())
                position = fence.end() if fence else len(text)
            openings = [each for each in (marks.call, marks.result, marks.answer) if each]
            after = search.first(openings, position)
            position = len(text) if after is None else after.start()
            continue
        found.calls.append(_innermost(text[position : close.start()], marks.call, in_string))
        found.leads.append(lead)
        position = close.end()
    found.plain = "\n".join([*plain, text[position:]])
    return found


class _Search:
    """Searches from ever later positions; looks at each part of the text once per pattern."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next: dict[re.Pattern[str], re.Match[str] | None] = {}

    def next(self, pattern: re.Pattern[str], position: int) -> re.Match[str] | None:
        """The first match at `position` or after it."""
        if pattern in self._next:
            match = self._next[pattern]
            if match is None or match.start() >= position:
                return match
        self._next[pattern] = match = pattern.search(self._text, position)
        return match

    def first(self, patterns: Sequence[re.Pattern[str]], position: int) -> re.Match[str] | None:
        """The earliest match of any of the patterns."""
        matches = [match for pattern in patterns if (match := self.next(pattern, position))]
        return min(matches, key=lambda match: match.start(), default=None)

    def close(
        self, mark: re.Pattern[str], start: int, in_string: Callable[[str], bool]
    ) -> tuple[re.Match[str] | None, re.Match[str] | None]:
        """The mark that closes a block begun at `start`, and the first closing mark in it."""
        first = close = self.next(mark, start)
        for _ in range(FALSE_CLOSES):
            if close is None or not in_string(self._text[start : close.start()]):
                break
            close = mark.search(self._text, close.end())
        return close, first


def _innermost(body: str, mark: re.Pattern[str], in_string: Callable[[str], bool]) -> str:
    """The block after the last opening mark in it: an earlier one was only talked about."""
    if body.lstrip().startswith("```"):  # the first mark was meant
        return body
    for match in [*mark.finditer(body)][: -FALSE_CLOSES - 1 : -1]:
        if not in_string(body[: match.start()]):
            return body[match.end() :]
    return body


_PYTHON = re.compile(
    r"""\#[^\n]* | (?P<quote>\"{3}|'{3}) (?:\\.|(?!(?P=quote)).)* (?P<end>(?P=quote)|\Z)
    | "(?:\\.|[^"\\\n])*(?P<double>"|\n|\Z) | '(?:\\.|[^'\\\n])*(?P<single>'|\n|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_SQL = re.compile(
    r"""--[^\n]* | /\*.*?(?:\*/|\Z)
    | "(?:""|[^"\n])*(?P<double>"|\n|\Z) | '(?:''|[^'\n])*(?P<single>'|\n|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_FENCED = re.compile(r"(?:\A|\n)[ \t]*```[ \t]*(?:\n[ \t]*)?\Z")


def in_python_string(body: str) -> bool:
    """True if Python code breaks off inside a string literal (and not after a closing fence)."""
    fences = body.count("```")
    return not (fences > 1 and _FENCED.search(body)) and _breaks_off(body, _PYTHON)


def in_sql_string(body: str) -> bool:
    """True if SQL breaks off inside a quoted string or name that was opened on its last line."""
    return _breaks_off(body, _SQL)


def _breaks_off(body: str, strings: re.Pattern[str]) -> bool:
    for match in strings.finditer(body):
        kind = match[0][0]
        if kind not in "\"'":
            continue
        if match.end() < len(body):
            # `'O'Brien'`: a letter right after a closing quote. The quoting is broken, and what
            # seems to be a string from here on is none.
            following = body[match.end()]
            if match[0][-1] == kind and (following.isalnum() or following == "_"):
                return False
            continue
        ends = match.groupdict()
        return not any(ends.get(name) for name in ("end", "double", "single"))
    return False


_LANGUAGES = {"python": "python|py", "sql": "sqlite|sql|postgresql|postgres|duckdb|mysql"}
_FENCE = re.compile(r"\A\s*```[^\n`]*\n")
_CLOSING_FENCE = re.compile(r"^[ \t]*```[ \t]*$", re.MULTILINE)
_OPEN_FENCE = re.compile(r"\s*```")


def unfenced(body: str, language: str = "python") -> str:
    r"""Code without the Markdown fence around it, if there is one, and what is said after it.

    The fence may name any language with any attributes on its line; before code that begins on the
    same line, or after words, it is known by a name of `language`, whatever its case or version.

    Example:
        >>> unfenced("```Python3.11\nprint(6)\n```\nThis prints six.")
        'print(6)'
    """
    body = body.strip("\n").rstrip()
    name = rf"(?:{_LANGUAGES[language]})[\d.]*"
    opening = _FENCE.match(body) or re.search(
        rf"\A[ \t]*```(?:{name}\b)?[ \t]*\n?|(?<=\n)```{name}[ \t]*\n", body, re.IGNORECASE
    )
    if opening:
        body = body[opening.end() :]
        closing = [*_CLOSING_FENCE.finditer(body)]
        body = body[: closing[-1].start()] if closing else body.rstrip().removesuffix("```")
    return body.strip("\n").rstrip()


_LABEL = re.compile(r"\A\s*(?:SQL ?Query|SQLite|SQL|Query)\s*:", re.IGNORECASE)


def unlabelled(query: str) -> str:
    """A query without a label before it (`SQLQuery: SELECT ...`)."""
    return _LABEL.sub("", query).strip() if _LABEL.match(query) else query


def without_thoughts(text: str, opening: str, closing: str) -> str:
    r"""The text outside of thoughts. One that is never closed lasts to the end; one that is closed
    but not opened here began before.

    Example:
        >>> without_thoughts("6?</think>7<think>or 8?</think>.<think>Hm", "<think>", "</think>")
        '7\n.\n'
    """
    if opening not in text and closing not in text:
        return text
    thought = rf"{re.escape(opening)}.*?(?:{re.escape(closing)}|\Z)"
    return re.sub(thought, "\n", text, flags=re.DOTALL).rpartition(closing)[2]


def last_block(text: str, tag: str, *, final: bool) -> str | None:
    """The content of the last closed `<tag>`; where the text is final, also of one left open."""
    close = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, close) if close >= 0 else -1
    if start >= 0:
        return text[start + len(tag) + 2 : close].strip()
    start = text.rfind(f"<{tag}>")
    return text[start + len(tag) + 2 :].strip() if final and start >= 0 else None


_BOX = r"\\(?:boxed|fbox)(?![a-zA-Z])"
_BRACES = re.compile(
    rf"(?P<box>{_BOX}\s*\{{)|{_BOX}\s*(?P<bare>[-+]?\d+(?:\.\d+)?|[a-zA-Z]\b)|\\.|[{{}}]",
    re.DOTALL,
)
_JOINED = re.compile(
    r"(?=.*(?:,|and|or))(?:[\s$*,;]|\\[()\[\]])*(?:(?:\\text\s*\{)?\s*(?:and|or)\s*\}?)?"
    r"(?:[\s$*]|\\[()\[\]])*",
    re.DOTALL,
)


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}`; None if there is no box.

    Boxes with nothing but "and", "or" or commas between them are one list. A last box that is not
    closed holds nothing (""), whatever was boxed before. Escaped braces are text; `\boxed 5` is a
    box too.

    Example:
        >>> boxed(r"The roots are $\boxed{4}$ and $\boxed{-3}$."), boxed(r"\boxed{9}, no: \boxed{8")
        ('4, -3', '')
    """
    # Start, start and end of the content, end. The texts of nested boxes would be quadratic.
    boxes: list[tuple[int, int, int, int]] = []
    opened: list[tuple[int, int] | None] = []  # number and begin of each open box, None for a brace
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append((len(boxes), match.end()))
            boxes.append((match.start(), len(text), len(text), len(text)))
        elif match["bare"]:
            boxes.append((match.start(), *match.span("bare"), match.end()))
        elif match[0] == "{":
            opened.append(None)
        elif match[0] == "}" and opened and (box := opened.pop()) is not None:
            number, begin = box
            boxes[number] = (boxes[number][0], begin, match.start(), match.end())
    if not boxes:
        return None
    start, begin, stop, _ = boxes.pop()
    last = text[begin:stop].strip()
    contents = {last: None}  # the last one first
    while last and boxes:
        before, begin, stop, end = boxes.pop()
        content = text[begin:stop].strip()
        if not content or start - end > 40 or not _JOINED.fullmatch(text[end:start]):
            break
        start = before
        contents.setdefault(content)
    return ", ".join(reversed(contents))
