"""Budget forcing: a thought that is too long is ended by us, and the model answers.

As in s1 (arXiv 2501.19393) and M1 (arXiv 2504.09772).
"""

from typing import Any

from ..formats.plain import BEGIN_OF_THOUGHT, END_OF_THOUGHT
from ..ledger import Source, Span
from ..loop import Rollout, Until
from ..trajectory import StopReason

__all__ = ["BudgetForcedRollout"]

_CUE = "\n\nFinal answer: "


class BudgetForcedRollout(Rollout):
    """A rollout that continues where its limit of response tokens has cut it off.

    The end of the thought (or, where the model has ended it already, a cue) goes after what it
    said, as the host's, and it has `tail` tokens more. Where it says nothing then, it is given the
    cue, up to `cues` times. Not where the model's context is full or a budget is spent.
    """

    def __init__(self, *given: Any, tail: int, cues: int = 1, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tail, self._cues = tail, cues
        self.thought_turns = 0
        """The turns of a thought that was ended here: the answer begins after them."""

    async def _take_turns(self, until: Until = Until.END) -> StopReason | None:
        stop = await super()._take_turns(until)
        trajectory, tokenizer = self.trajectory, self.policy.engine.tokenizer
        for cue in range(1 + self._cues):
            turn = trajectory.turns[-1]
            said = trajectory.text(turn, tokenizer)
            thinks = not cue and END_OF_THOUGHT not in said
            words = f"\n{END_OF_THOUGHT}\n\n" if thinks else _CUE
            ids = tokenizer.encode_continuation(words)
            length = len(trajectory.ledger) + len(ids) + self._tail
            if stop is not StopReason.LENGTH or length > self.policy.engine.context_length:
                return stop
            if cue and said.strip():
                return stop  # the tail was not enough, but it is something
            prompt = tokenizer.decode(trajectory.ledger.ids[: self._first_token])
            if thinks and BEGIN_OF_THOUGHT.search(prompt[-16:] + said):
                self.thought_turns = len(trajectory.turns)
            trajectory.ledger.append(Span.given(Source.HOST, ids))
            used = len(trajectory.ledger) - self._first_token
            self.policy = self.policy.with_limits(max_tokens=used + self._tail)
            self._turns_left = self.policy.limits.max_turns
            stop = await super()._take_turns(until)
        return stop
