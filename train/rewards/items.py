"""Tokens and groups of an answer in LaTeX: `latex` reads them, `kinds` takes them apart."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["CLOSING", "Group", "Item", "Token", "enclosed", "is_space", "kind_of", "split"]
__all__ += ["text_of", "trim", "unspaced"]


class Token(NamedTuple):
    r"""One token. `kind` is number, letters, command (`\pi`), text (`\text{..}`), symbol, or, in
    between, space and thin (a space that joins digits).
    """

    kind: str
    text: str


class Group(NamedTuple):
    """The content of braces."""

    items: "tuple[Item, ...]"


Item: TypeAlias = Token | Group

CLOSING = {"(": ")", "[": "]", "\\{": "\\}", "\\langle": "\\rangle"}
"""The closing bracket by its opening one."""


def text_of(item: Item | None) -> str:
    """The text of a token; "" for a group or nothing."""
    return item.text if isinstance(item, Token) else ""


def kind_of(item: Item | None) -> str:
    """The kind of a token; "" for a group or nothing."""
    return item.kind if isinstance(item, Token) else ""


def is_space(item: Item) -> bool:
    """True for a space of either kind."""
    return kind_of(item) in ("space", "thin")


def unspaced(items: Sequence[Item]) -> list[Item]:
    """The items of this level without its spaces."""
    return [item for item in items if not is_space(item)]


def trim(items: Sequence[Item]) -> list[Item]:
    """The items without spaces, dollar signs, quotes and dots around them, or braces around all."""
    start, end = 0, len(items)
    while start < end:
        first, last = items[start], items[end - 1]
        alone = start == end - 1
        if not alone and text_of(first) == text_of(last) and text_of(first) in ("$", '"', "`"):
            start, end = start + 1, end - 1
        elif is_space(first):
            start += 1
        elif is_space(last) or text_of(last) == ".":
            end -= 1
        elif alone and isinstance(first, Group):
            items = first.items
            start, end = 0, len(items)
        else:
            break
    money = Token("symbol", "\\$")
    return [money if text_of(item) == "$" else item for item in items[start:end]]


def split(items: Sequence[Item], marks: Sequence[str]) -> tuple[list[list[Item]], list[str]]:
    """The parts between the marks that are outside of all brackets, and those marks."""
    parts: list[list[Item]] = [[]]
    found: list[str] = []
    depth = 0
    for item in items:
        text = text_of(item)
        depth += (text in CLOSING) - (text in CLOSING.values())
        depth += text.startswith("\\begin{") - text.startswith("\\end{")
        word = text.casefold() if kind_of(item) in ("text", "letters") else text
        if depth == 0 and word in marks:
            parts.append([])
            found.append(word)
        else:
            parts[-1].append(item)
    return parts, found


def enclosed(items: Sequence[Item]) -> bool:
    """True if one pair of brackets encloses all of it. A half-open interval is such a pair."""
    if len(items) < 2 or text_of(items[0]) not in CLOSING:
        return False
    depth = 0
    for at, item in enumerate(items):
        depth += (text_of(item) in CLOSING) - (text_of(item) in CLOSING.values())
        if depth == 0:
            return at == len(items) - 1
    return False
