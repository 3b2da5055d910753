"""Finding tagged blocks in what a policy wrote, with all the ways it can be written wrongly."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Scan", "boxed", "in_python_string", "in_sql_string", "last_block", "scan", "unfenced"]

# So many closing tags may stand in strings of one block before the next one counts. Each is looked
# at from the start of the block, so this also bounds the work.
FALSE_CLOSES = 32


@dataclass(slots=True)
class Scan:
    """A text cut into blocks. `plain` is what is neither a call nor a forged result.

    `pending`: a closing tag stands inside a string, so the block goes on. `unclosed`: a call was
    opened and not closed.
    """

    calls: list[str] = field(default_factory=list)
    plain: str = ""
    forged: bool = False
    pending: bool = False
    unclosed: bool = False


def scan(
    text: str,
    call: str,
    result: str,
    *,
    final: bool,
    in_string: Callable[[str], bool] = lambda body: False,
) -> Scan:
    """Cut text at the tags `<call>` and `<result>`, read from left to right.

    `final` says that nothing follows: then a closing tag in a string closes after all. A forged
    result ends at its closing tag, at the next call or at the end. Each block leaves a line break
    in `plain`, so that what stood around it can't become a tag.
    """
    found = Scan()
    opening = re.compile(f"<{call}>|<{result}>")
    forged_end = re.compile(f"</{result}>|(?=<{call}>)")
    position = 0
    while match := opening.search(text, position):
        found.plain += text[position : match.start()] + "\n"
        position = match.end()
        if match[0] == f"<{result}>":
            found.forged = True
            end = forged_end.search(text, position)
            position = end.end() if end else len(text)
            continue
        close, first = _close(text, position, f"</{call}>", in_string)
        if close < 0 and first >= 0:
            if not final:
                found.pending = True
                return found
            close = first
        if close < 0:  # read on behind the tag: what follows may still hold an answer
            found.unclosed = True
            continue
        found.calls.append(_innermost(text[position:close], f"<{call}>", in_string))
        position = close + len(f"</{call}>")
    found.plain += text[position:]
    return found


def _close(text: str, start: int, tag: str, in_string: Callable[[str], bool]) -> tuple[int, int]:
    """Where a block that begins at `start` is closed, and where its first closing tag stands."""
    first = close = text.find(tag, start)
    for _ in range(FALSE_CLOSES):
        if close < 0 or not in_string(text[start:close]):
            return close, first
        close = text.find(tag, close + 1)
    return close, first


def _innermost(body: str, tag: str, in_string: Callable[[str], bool]) -> str:
    """The block behind the last opening tag in it: an earlier one was only talked about."""
    if body.lstrip().startswith("```"):  # the first tag was meant
        return body
    at = body.rfind(tag)
    return body if at < 0 or in_string(body[:at]) else body[at + len(tag) :]


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
_FENCED = re.compile(r"(?:\A|\n)[ \t]*```[ \t]*\n?[ \t]*\Z")


def in_python_string(body: str) -> bool:
    """Whether Python code breaks off inside a string literal (and not behind a closing fence)."""
    fences = body.count("```")
    return not (fences > 1 and _FENCED.search(body)) and _breaks_off(body, _PYTHON)


def in_sql_string(body: str) -> bool:
    """Whether SQL breaks off inside a quoted string or name that was opened on its last line."""
    return _breaks_off(body, _SQL)


def _breaks_off(body: str, strings: re.Pattern[str]) -> bool:
    for match in strings.finditer(body):
        kind = match[0][0]
        if kind not in "\"'":
            continue
        if match.end() < len(body):
            # `'O'Brien'`: a letter right behind a closing quote. The quoting is broken, and what
            # seems to be a string from here on is none.
            following = body[match.end()]
            if match[0][-1] == kind and (following.isalnum() or following == "_"):
                return False
            continue
        ends = match.groupdict()
        return not any(ends.get(name) for name in ("end", "double", "single"))
    return False


_OPENING_FENCE = re.compile(
    r"\A[ \t]*```(?:(?:python3?|py)\b)?[ \t]*\n?|(?<=\n)```(?:python3?|py)[ \t]*\n"
)


def unfenced(body: str) -> str:
    """Code without the Markdown fence around it, if there is one."""
    body = body.strip("\n").rstrip()
    if opening := _OPENING_FENCE.search(body):
        body = re.sub(r"\n?[ \t]*```\Z", "", body[opening.end() :])
    return body.strip("\n").rstrip()


def last_block(text: str, tag: str, *, final: bool) -> str | None:
    """The content of the last closed `<tag>`; where the text is final, also of one left open."""
    close = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, close) if close >= 0 else -1
    if start >= 0:
        return text[start + len(tag) + 2 : close].strip()
    start = text.rfind(f"<{tag}>")
    return text[start + len(tag) + 2 :].strip() if final and start >= 0 else None


_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` whose braces are balanced. Escaped braces are text."""
    last: tuple[int, int] | None = None
    opened: list[int | None] = []  # where each open box begins, None for another brace
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
        elif match[0].endswith("{") and match[0] != r"\{":
            opened.append(match.end() if len(match[0]) > 1 else None)
    return None if last is None else text[slice(*last)].strip()
