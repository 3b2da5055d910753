"""Something that can be rolled out: what evaluations and trainers need of what answers tasks."""

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:  # a policy is one such thing: its module imports this one
    from .many.runner import Attempt
    from .many.strategies import Strategy
    from .policy import Policy

__all__ = ["Rollable", "RolloutPlan"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How an episode of a task is made, once the model is loaded: the arguments of a `Runner`.

    By default an episode is one rollout of the `policy`. With a `strategy` it is several, of which
    one is chosen; with an `attempt` it is what that makes of it. `settings` are recorded beside the
    policy's own.
    """

    policy: "Policy"
    strategy: "str | Strategy | None" = None
    attempt: "Attempt | None" = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class Rollable(Protocol):
    """Makes an episode of a task: `Agent`, `Team` and a bare `Policy` do."""

    @property
    def early_settings(self) -> dict[str, Any]:
        """The settings of its episodes that are known before the model is loaded."""
        ...

    async def rollout_plan(self) -> RolloutPlan:
        """Load the model and start the tools, if they aren't yet. Raises as doing so does."""
        ...

    def wait(self, work: Coroutine[Any, Any, V]) -> V:
        """Run async work to its end from sync code, in the event loop that its tools live in."""
        ...
