"""The result of a question: an agent always returns one."""

import re
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import Any, Generic

import pydantic_core
from typing_extensions import TypeVar

from ..rollout.formats.scan import without_thoughts
from ..rollout.html import ledger_html
from ..rollout.policy import Policy
from ..rollout.tokenizer import Tokenizer
from ..rollout.trajectory import (
    CallRecord,
    Episode,
    FinishReason,
    StopReason,
    Trajectory,
    shortened,
)
from . import JSON_VERSION

__all__ = ["Result", "Usage", "ending"]

T = TypeVar("T", default=None)


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of one question. `tokens` are the model's own, or as its server counts them."""

    tokens: int
    """Tokens the model sampled."""
    prompt_tokens: int
    """Tokens of context before the first one it sampled, earlier questions included."""
    tool_tokens: int
    """Tokens that tools and notices put into the context."""
    turns: int
    """Times the model spoke."""
    calls: int
    """Tool calls, refused ones included."""
    seconds: float
    """Wall time, tools included."""
    estimated: bool = False
    """True if `tokens` is a guess from the length of the text: the server reports no usage."""


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """How one question ended.

    There is always one, whatever the model or a tool did: `stop` says why it ended, and `answer` is
    None if there was none. An answer may be in plain text, too (`ending`). `text` is all that the
    model wrote. `output` is the answer as the type that the agent was given; where it does not fit,
    it is None and `output_problem` says why. `error` says what failed on our side, where `stop` is
    `INFRASTRUCTURE`. `episode` is the record with every token, as a log and a trainer take it; in a
    conversation it is shared and keeps growing. In a notebook a result is shown as its tokens,
    coloured by their source.
    """

    question: str
    stop: StopReason
    answer: str | None
    text: str
    calls: tuple[CallRecord, ...]
    usage: Usage
    error: str | None
    episode: Episode
    output: T | None = None
    output_problem: str | None = None
    tokenizer: Tokenizer | None = field(default=None, compare=False)
    """The model's, to show the tokens as text; it is left out of a pickle."""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON: the object that `interlace run --json` prints.

        It is for replies of servers, checkpoints of graphs and queues; `episode` has every token.
        """
        trajectory = self.episode.trajectories[-1] if self.episode.trajectories else None
        return {
            "schema_version": JSON_VERSION,
            "question": self.question,
            "answer": self.answer,
            "stop": self.stop.value,
            "model": trajectory and trajectory.model,
            "format": trajectory and trajectory.format,
            "usage": asdict(self.usage),
            "calls": [
                {
                    "tool": call.tool,
                    "arguments": pydantic_core.to_jsonable_python(
                        call.arguments, inf_nan_mode="strings"
                    ),
                    "output": call.output,
                    "error": call.error.value if call.error else None,
                    "seconds": round(call.seconds, 3),
                    "state_lost": call.state_lost,
                }
                for call in self.calls
            ],
            "error": self.error,
        }

    def __repr__(self) -> str:
        answer = "" if self.answer is None else f" {shortened(self.answer)}"
        error = "" if self.error is None else f" {shortened(self.error)}"
        usage = self.usage
        counts = f"turns={usage.turns}, calls={usage.calls}, tokens={usage.tokens}"
        return f"<Result {self.stop.value}{answer}{error}: {counts}, seconds={usage.seconds:g}>"

    def _repr_html_(self) -> str:
        """The result in a notebook."""
        head = f"<b>{escape(repr(self)[1:-1])}</b>"
        ledgers = self.episode.trajectories[-1].ledgers if self.episode.trajectories else []
        return head + "".join(ledger_html(ledger, self.tokenizer) for ledger in ledgers)

    def __getstate__(self) -> list[Any]:
        kept = (each.name for each in fields(self))
        return [None if name == "tokenizer" else getattr(self, name) for name in kept]

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory with its ledgers."""
        return self.episode.trajectory

    @property
    def denied(self) -> tuple[CallRecord, ...]:
        """The calls that were not approved."""
        return tuple(call for call in self.calls if call.details.get("approval") == "denied")


_EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}?")


def ending(policy: Policy, trajectory: Trajectory) -> tuple[StopReason, str | None]:
    """How the last question ended for the person who asked it: the stop reason and the answer.

    A turn that the model ended itself, without a call, is an answer if it says anything, with or
    without the tags that its format asks for. The trajectory keeps what its format reads: rewards
    and evaluations demand the tags.
    """
    stop = trajectory.stop or StopReason.INFRASTRUCTURE
    if stop is not StopReason.ENDED or not trajectory.turns:
        return stop, trajectory.answer
    turn = trajectory.turns[-1]
    if turn.calls or turn.finish not in (FinishReason.EOS, FinishReason.STOP):
        return stop, None
    text = trajectory.text(turn, policy.engine.tokenizer)
    said = policy.format.parse(text, turn.finish, tuple(policy.tools.values())).text
    if said is None:
        said = without_thoughts(text, *policy.format.thought).strip()
    if not _EMPTY_BOX.sub("", said).strip():
        return stop, None
    return StopReason.ANSWERED, said
