r"""Multiple choice: which option an answer names.

GPQA (arXiv 2311.12022) and sets like it. Their evaluations look for `Answer: B` or the last letter
of a reply; here the whole answer has to name one option and no other, so that listing letters
earns nothing.
"""

import re

from ...rollout.formats.scan import boxed
from ...rollout.task import Task
from .base import Unscored

__all__ = ["chosen", "same_choice"]

_MOST = 2_000
"""Characters of an answer: a longer one is an essay."""
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf|rm|bf)\b\s*|[*_`$]|\\[()\[\] ,;!]")
_REFUSES = re.compile(r"\b(?:not|never|neither|except|cannot|wrong|incorrect)\b|n['’]t\b", re.I)  # noqa: RUF001
_ALONE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?")
_LEADS = re.compile(
    r"(?:.{0,80}\b(?:answer|option|choice)\s*(?:is|:)?\s*)?[(\[]?([A-Z])[)\].:,-]*\s(.+)",
    re.DOTALL | re.IGNORECASE,
)
"""A letter, and after it text that may be the option's own."""
_NAMED = re.compile(r"(?<![\w'’^\\-])([A-Z])(?![\w'’^-])")  # noqa: RUF001
_ARTICLE = re.compile(r"(?<![\w(\[-])A\s+(?!(?:and|or|is|was|because|since|as)\b)(?=[a-z])")


def same_choice(task: Task, a: str, b: str) -> bool:
    """True if two answers to a task name the same option: letter or text.

    `task.data["options"]` are the options' texts in the order of their letters. Raises Unscored if
    there are none or `b`, the gold answer, names none of them.
    """
    options = task.data.get("options")
    if not isinstance(options, list | tuple) or not 2 <= len(options) <= 26:
        raise Unscored(f"the task {task.id!r} has no list of 2 to 26 options in its data")
    texts = [str(option) for option in options]
    gold = chosen(b, texts)
    if gold is None:
        raise Unscored(f"the gold answer {b!r:.40} of {task.id!r} names none of its options")
    return chosen(a, texts) == gold


def chosen(answer: str, options: list[str]) -> int | None:
    r"""The number, from 0, of the one option that an answer names; None if it names none or more.

    Read are `B`, `(b)`, `B.`, `\boxed{\text{B}}`, `The answer is B`, `B: its text`, and the text
    of an option alone. A letter beside another option's text names two.

    Example:
        >>> [chosen(text, ["9 m", "12 m"]) for text in ("(B)", "12 m", "A or B", "B. 9 m")]
        [1, 1, None, None]
    """
    inner = boxed(answer)
    text = _plain(answer if inner is None else inner)
    if not text or len(text) > _MOST:
        return None
    if (alone := _ALONE.fullmatch(text)) and (place := _place(alone[1], options)) is not None:
        return place
    plain = [_plain(option).casefold().rstrip(" .") for option in options]
    whole = text.casefold().rstrip(" .")
    if whole in plain:
        return plain.index(whole) if plain.count(whole) == 1 else None
    if (leads := _LEADS.fullmatch(text)) and leads[1].isupper():
        place, rest = _place(leads[1], options), leads[2].casefold().strip(" .()")
        texts = [each.strip(" .()") for each in plain]
        if place is not None and rest in texts:  # the letter with the text of an option
            return place if texts[place] == rest else None
    if _REFUSES.search(text):
        return None
    letters = _NAMED.findall(_ARTICLE.sub(" ", text))
    named = {_place(letter, options) for letter in letters} - {None}
    return named.pop() if len(named) == 1 else None


def _place(letter: str, options: list[str]) -> int | None:
    place = ord(letter.upper()) - ord("A")
    return place if place < len(options) else None


def _plain(text: str) -> str:
    without = _MARKUP.sub("", text)
    return " ".join(re.sub(r"[{}]", " ", without).split())
