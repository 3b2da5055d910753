"""Marks as a reader takes them: also in other case, with blanks, or in letters that look the same.

A policy that writes `< Interpreter >`, or the mark with a Cyrillic letter or an invisible character
in it, writes a tool's result itself as much as one that writes `<interpreter>`.
"""

import re
import unicodedata

__all__ = ["alike"]

_INVISIBLE = (
    r"[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\ufe00-\ufe0f\ufeff]*"
)
_LETTERS = (
    "aаɑα bьƅ cсϲ dԁɗ eеҽε fƒ gɡց hһհ iіıɩι jј kк lӏ1| mм nոη oоοօ0 pрρ qԛ rгᴦ sѕꜱ tтτ uυս vѵν "  # noqa: RUF001
    "wԝѡ xхχ yуγ zᴢ <‹〈⟨❮˂ >›〉⟩❯˃ /⁄∕ _-▁‐‑‒–— ▁_- |ǀ∣ [⟦ ]⟧"  # noqa: RUF001
)
"""Each character of a mark, and others that look like it (from confusables.txt of UTS 39)."""
_SAME = {each[0]: set(each) for each in _LETTERS.split()}
for _code in (*range(0x24B6, 0x24EA), *range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D6A4)):
    _plain = unicodedata.normalize("NFKC", chr(_code)).casefold()
    _SAME.setdefault(_plain, {_plain}).add(chr(_code))
_BRACKETS = "<>[]|｜/"


def alike(mark: str) -> str:
    """The pattern of a mark and of whatever looks like it, whatever its case.

    A tag in angle brackets may have attributes.

    Example:
        >>> pattern = re.compile(alike("<result>"))
        >>> [bool(pattern.match(text)) for text in ("<Result >", '< result id="1">', "<results>")]
        [True, True, False]
    """
    pieces = []
    for at, character in enumerate(mark):
        plain = unicodedata.normalize("NFKC", character).casefold()
        same = {character, *_SAME.get(plain, {plain})}
        piece = f"[{''.join(map(re.escape, sorted(same)))}]"
        bracket = character in _BRACKETS
        if character == ">" and mark[at - 1].isalpha():
            piece = rf"(?:\s[^<>]{{0,80}})?{piece}"
        elif bracket and at and mark[at - 1] not in _BRACKETS:
            piece = rf"[ \t]*{piece}"
        if bracket and at + 1 < len(mark):
            piece = rf"{piece}[ \t]*"
        pieces.append(piece)
    # A bracket has no case: outside of the group it is searched for ten times as fast.
    first = 0 if mark[0].isalpha() else 1
    return f"{''.join(pieces[:first])}(?i:{_INVISIBLE.join(['', *pieces[first:]])})"
