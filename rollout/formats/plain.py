"""Plain words: a format without calls, for those who are asked to say something, not to solve it.

The CEO of a team, its recruiter and its evaluator speak so. What they say is read by
`rollout/team/replies.py`.
"""

import re
from collections.abc import Sequence

from ...tools import Tool
from ...tools.errors import UsageError
from ..trajectory import CallRecord, FinishReason
from .base import Format, Parsed

__all__ = ["BEGIN_OF_THOUGHT", "END_OF_THOUGHT", "PlainText", "without_thinking"]

END_OF_THOUGHT = "</think>"
_END = re.compile(r"</think(?:ing)?>", re.I)
BEGIN_OF_THOUGHT = re.compile(r"^[ \t]*<think(?:ing)?>", re.I | re.M)


class PlainText(Format):
    """A format whose answer is the text without the thought before it.

    Example:
        >>> PlainText().parse("<think>Let me see.</think> It is well.", FinishReason.EOS, ()).answer
        'It is well.'
    """

    name = "words"
    stop: tuple[str, ...] = ()
    inline = True
    control_tags: tuple[str, ...] = ()

    def check(self, tools: Sequence[Tool]) -> None:
        """Raise UsageError for any tool."""
        if tools:
            raise UsageError("the format words can call no tool; use the format hermes for any")

    def system(self, tools: Sequence[Tool]) -> str:
        """Nothing."""
        return ""

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """The whole turn, once it is over."""
        said = without_thinking(text)
        return Parsed(answer=(said or None) if finish is FinishReason.EOS else None, text=said)

    def render(self, calls: Sequence[CallRecord]) -> str:
        """Return an empty text, since there are no calls."""
        return ""


def without_thinking(text: str) -> str:
    """The text without the thoughts: what follows the last one that has ended, up to one that
    was begun and never ended.

    Example:
        >>> without_thinking("<think>17 or 19?</think> It is 17. ")
        'It is 17.'
        >>> without_thinking("<Thinking>It could be 17")
        ''
    """
    *_, said = _END.split(text)
    return BEGIN_OF_THOUGHT.split(said, maxsplit=1)[0].strip()
