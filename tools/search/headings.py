"""The headings of Markdown, reStructuredText and HTML, by the lines they are on."""

import html
import re
from itertools import pairwise
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["Heading", "in_html", "in_markdown", "in_rst"]

_BLOCKS = MarkdownIt("commonmark")
_FRONT_MATTER = re.compile(
    r"---[ \t]*\n(?=[\w-]+:)((?:[\w-]+:(?:[ \t].*)?\n|[ \t].*\n|-[ \t].*\n|#.*\n|\n)++)"
    r"(?:---|\.\.\.)[ \t]*(?:\n|$)"
)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")
_MARKUP = re.compile(r"<!--|<(/?)([A-Za-z][\w:-]*+)[^<>]*+>|<[!?][^<>]*+>")
_NOT_SHOWN = re.compile(r"</(?:script|style|template)\b", re.IGNORECASE)
_HEADING_TAG = re.compile("title|h[1-6]")
_LINE_TAG = re.compile("br|d[dt]|li|option|t[dhr]")
_INLINE_TAG = re.compile(
    "a|abbr|acronym|b|bd[io]|big|button|cite|code|data|del|dfn|em|font|i|img|input|ins|kbd|label|"
    "mark|nobr|q|s|samp|small|span|strike|strong|su[bp]|svg|time|tt|u|var|wbr|ruby|r[bpt]"
)


class Heading(NamedTuple):
    """A heading: its first line, the line after its last, its level (0 for a page's title)."""

    first: int
    after: int
    level: int
    title: str


def in_markdown(text: str) -> tuple[str, list[Heading]]:
    """Markdown, and its headings by CommonMark's rules, first the title in YAML front matter.

    Front matter counts as lines of that heading, with or without a title.
    """
    found = []
    body = text
    matter = _FRONT_MATTER.match(text)
    start = 0
    if matter:
        start = matter[0].count("\n") + (not matter[0].endswith("\n"))
        named = _FRONT_TITLE.search(matter[1])
        found.append(Heading(0, start, 0, named[1].strip("\"'") if named else ""))
        body = text[matter.end() :]
    tokens: list[Token] = []
    _BLOCKS.block.parse(body, _BLOCKS, {}, tokens)
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map is not None:
            first, after = token.map
            title = " ".join(content.content.split())
            found.append(Heading(start + first, start + after, int(token.tag[1]), title))
    return text, found


def in_rst(text: str) -> tuple[str, list[Heading]]:
    """ReStructuredText, and its section titles: over, or between, lines of one punctuation mark.

    A style's level is its place in the order in which the styles appear.
    """
    lines = text.split("\n")
    found: list[Heading] = []
    styles: list[tuple[str, bool]] = []
    for number in range(1, len(lines)):
        under, title = _ADORNMENT.match(lines[number]), lines[number - 1].strip()
        if not under or not title or _ADORNMENT.match(lines[number - 1]):
            continue
        above = lines[number - 2] if number > 1 else ""
        framed = above.strip() == lines[number].strip()
        long_enough = len(lines[number].strip()) >= len(title)
        if not long_enough or not (framed or not above.strip()):
            continue
        if not framed and lines[number - 1][:1].isspace():
            continue
        style = (under[1], framed)
        if style not in styles:
            styles.append(style)
        first = number - 2 if framed else number - 1
        found.append(Heading(first, number + 1, styles.index(style) + 1, title))
    return text, found


def in_html(page: str) -> tuple[str, list[Heading]]:
    """The text of a page, each heading on a line of its own, and these headings.

    Tags, comments, scripts and styles are left out; a blank line separates blocks.
    """
    lines: list[str] = []
    found: list[Heading] = []
    block: list[str] = []
    heading, verbatim = "", False

    def end_block(*, apart: bool = True) -> None:
        text = html.unescape("".join(block))
        block.clear()
        if heading:
            if title := " ".join(text.split()):
                level = 0 if heading == "title" else int(heading[1])
                found.append(Heading(len(lines), len(lines) + 1, level, title))
                lines.append(title)
        elif text.strip():
            lines.extend(text.split("\n") if verbatim else [" ".join(text.split())])
        if apart and lines and lines[-1]:
            lines.append("")

    place = 0
    while tag := _MARKUP.search(page, place):
        block.append(page[place : tag.start()])
        place = tag.end()
        name = (tag[2] or "").lower()
        if tag[0] == "<!--":
            close = page.find("-->", place)
            place = close + 3 if close >= 0 else len(page)
        elif name in ("script", "style", "template") and not tag[1]:
            closing = _NOT_SHOWN.search(page, place)
            place = closing.start() if closing else len(page)
        elif _HEADING_TAG.fullmatch(name):
            end_block()
            heading, verbatim = ("" if tag[1] else name), False
        elif not name or _INLINE_TAG.fullmatch(name):
            continue
        elif heading or (verbatim and _LINE_TAG.fullmatch(name)):
            block.append("\n" if verbatim else " ")
        else:
            end_block(apart=not _LINE_TAG.fullmatch(name))
            verbatim = name == "pre" and not tag[1]
    block.append(page[place:])
    end_block()
    return "\n".join(lines), found
