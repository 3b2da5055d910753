"""From text to ids, for one format, one tokenizer and one set of tools.

The one place that knows chat templates. The ids of a tool turn are worked out once per template;
nothing the policy sampled is ever rendered again.
"""

from collections.abc import Sequence

from ...tools import Tool
from ..ledger import Span
from ..tokenizer import Tokenizer
from ..trajectory import CallRecord
from .base import Format, Message

__all__ = ["Encoder"]


class Encoder:
    """Makes the spans that the policy does not write."""

    def __init__(self, format: Format, tokenizer: Tokenizer, tools: Sequence[Tool]) -> None: ...

    def prompt(self, question: str, history: Sequence[Message] = ()) -> list[Span]:
        """The spans (source PROMPT) that open a ledger: system, history, question, and whatever
        comes before the first token of the policy.
        """
        ...

    def results(self, calls: Sequence[CallRecord], *, ended: bool, notice: str = "") -> list[Span]:
        """The spans (TOOL, and HOST for the notice) that answer one turn's calls.

        `ended`: the policy's turn closed with an end-of-sequence token of its own.
        """
        ...

    def follow_up(self, question: str, *, ended: bool) -> list[Span] | None:
        """The spans (PROMPT) of a later question in the same ledger; None where the template
        strips earlier thinking, so that a new ledger has to be opened with the history.
        """
        ...
