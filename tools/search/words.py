"""Text as words: spellings that a reader takes for one become one, in passages and in queries.

This comes before the analyzer of the index, which splits at everything but letters
and digits, lowers the case, turns Latin letters into ASCII and takes off English endings. A word
that may also be read as several, or several as one (`SearchIndex`, `e-mail`, a hyphen at a line's
end), gives both. The passage itself is shown as it stands.
"""

import re
import unicodedata

__all__ = ["normalized"]

_LONGEST_WHOLE = 60
"""Characters of a word that is put together from parts."""
_BETWEEN_DIGITS = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d)")
_HYPHEN = re.compile("[\u2010\u2011]|\u00ad(?=[ \t]*\n)")
_LINE_END = re.compile(r"-[ \t]*\n[ \t]*(?=\w)")
_HYPHENED = re.compile(r"[^\W\d_]++(?:-[^\W\d_]++)++")
_GROUPED = re.compile(
    "(?<![0-9.,])[0-9]{1,3}(?:[,.'\u2019_][0-9]{2}(?![0-9]))*+(?:[,.'\u2019_][0-9]{3})++"
    "(?![,.]?[0-9])"
)
"""A number in groups of digits: `1,234,567`."""
_NAME = re.compile(r"(?<![^\W_])[A-Za-z0-9]{3,60}+(?![^\W_])")
_PART = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
"""The places between the parts of a name: `SearchIndex`, `HTTPServer`."""
_SIGNED = re.compile(r"(?<![^\W_])([A-Za-z])(?:(\+\+)(?![A-Za-z_+])|#(?![\w#]))")
"""A letter whose sign makes another word of it: `C++`, `C#`."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point, and the tatweel that lengthens an Arabic word."""
_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a"
    "\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
)
"""Accents of Latin, Greek and Cyrillic letters, and the points of Hebrew and Arabic."""
_OWN_LETTERS = re.compile("[\u0438\u0418\u0443\u0423]\u0306|[\u0456\u0406]\u0308")
"""The Cyrillic short i, short u and yi: letters of their own, not letters with an accent."""
_DIGIT = re.compile(r"(?![0-9])\d")
_SINGLE = re.compile(
    r"([\u3040-\u30ff\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff])"
)
"""Characters of Chinese, Japanese and Korean: each is a word."""
_PAIRED = re.compile(
    r"[\u0e01-\u0e3a\u0e40-\u0e4e\u0e80-\u0ece\u0edc-\u0edf"
    r"\u1000-\u103f\u1050-\u108f\uaa60-\uaa7f\u1780-\u17d3]+"
)
"""Thai, Lao, Burmese and Khmer, which set no spaces between words: each two characters are one."""


def normalized(text: str) -> str:
    """A text as the analyzer of the index gets it.

    >>> normalized("Die Bru\u0308cke"), normalized("Αθήνα"), normalized("SearchIndex of 1,000")
    ('Die Brucke', 'αθηνα', 'SearchIndex of 1,000 1000 Search Index')
    """
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
        text = _BETWEEN_DIGITS.sub(",", _HYPHEN.sub("-", text))
        text = unicodedata.normalize("NFKD", _INVISIBLE.sub("", text))
        text = _OWN_LETTERS.sub(lambda found: unicodedata.normalize("NFC", found[0]), text)
        text = unicodedata.normalize("NFC", _MARKS.sub("", text))
        text = text.replace("\u266f", "#")
        text = _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)
        text = _PAIRED.sub(lambda found: _pairs(found[0]), _SINGLE.sub(r" \1 ", text))
    if "-" in text:
        text = _LINE_END.sub("-", text)
    more = [re.sub("[^0-9]", "", number) for number in _GROUPED.findall(text)]
    if "#" in text or "++" in text:
        for sign in _SIGNED.finditer(text):
            more.append(f"{sign[1]}{'plusplus' if sign[2] else 'sharp'}")
    for word in text.split():
        if "-" in word:
            wholes = (found.replace("-", "") for found in _HYPHENED.findall(word))
            more += [whole for whole in wholes if len(whole) <= _LONGEST_WHOLE]
        if not (word.islower() or word.istitle() or word.isupper()):
            for name in _NAME.findall(word):
                parts = _PART.split(name)
                more += parts if parts[1:] else ()
    if more:
        text = f"{text} {' '.join(more)}"
    return text if text.isascii() else text.casefold()


def _pairs(run: str) -> str:
    """The pairs of characters, each as the code points: vowel signs would end a word."""
    pairs = [run[place : place + 2] for place in range(max(len(run) - 1, 1))]
    return " " + " ".join("".join(f"{ord(each):04x}" for each in pair) for pair in pairs) + " "
