"""The thoughts of a model, told apart from what it says while it speaks."""

from ..rollout.events import Event, Finished, PolicyText
from ..rollout.formats.stream import MarkStream
from ..rollout.policy import Policy
from ..rollout.trajectory import Trajectory
from .events import Reasoning

__all__ = ["Thinking"]

_LAST_TOKENS = 16
"""So many of a prompt are looked at: a template may open a thought at its end."""


class Thinking:
    """Cuts what a model writes where it begins and ends to think. Nothing is left out.

    The tags belong to the thought.
    """

    def __init__(self, policy: Policy) -> None:
        self._tokenizer = policy.engine.tokenizer
        self._inline = policy.format.inline
        self._open, self._close = policy.format.thought
        self._turns = 0
        self._thinks = False
        self._stream = MarkStream()
        self._tokens = 0

    def hear(self, event: Event, trajectory: Trajectory) -> list[Event | Reasoning]:
        """The event, or what is certain of it now; what was held back comes first."""
        if not isinstance(event, PolicyText):
            events: list[Event | Reasoning] = [*self._end(), event]
            self._thinks = self._thinks and not isinstance(event, Finished)
            return events
        if self._turns != len(trajectory.turns):
            self._turns = len(trajectory.turns)
            self._begin(trajectory)
        return [*self._feed(event)]

    def _begin(self, trajectory: Trajectory) -> None:
        turn = trajectory.turns[-1]
        ids = trajectory.ledgers[turn.ledger].ids[max(0, turn.start - _LAST_TOKENS) : turn.start]
        opened = self._tokenizer.decode(ids.tolist()).rstrip().endswith(self._open)
        # Where results come in the middle of a turn's text, a thought continues after them.
        self._thinks = opened or (self._inline and self._thinks)

    def _feed(self, event: PolicyText) -> list[PolicyText | Reasoning]:
        self._tokens += event.tokens
        events: list[PolicyText | Reasoning] = []
        opening = ""
        for text, tag in self._stream.feed(
            event.text, lambda: (self._close if self._thinks else self._open,)
        ):
            events += self._piece(opening + text + (tag if self._thinks else ""))
            opening = "" if self._thinks else tag
            self._thinks ^= bool(tag)
        if opening:
            events += self._piece(opening)
        return events

    def _end(self) -> list[PolicyText | Reasoning]:
        held = self._stream.end()
        return self._piece(held) if held or self._tokens else []

    def _piece(self, text: str) -> list[PolicyText | Reasoning]:
        if not text and not self._tokens:
            return []
        tokens, self._tokens = self._tokens, 0
        return [(Reasoning if self._thinks else PolicyText)(text, tokens)]
