"""The settings of our agent loop in verl's configuration."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...rollout.formats import find_format
from ...tools.errors import UsageError
from ...tools.importing import find
from ...tools.named import TOOLS, without_password
from ..config import in_words, loading, to_strategy
from ..rewards import find_checker, find_reward
from ..rewards.team_credit import find_place
from ..team import find_attempt

__all__ = ["PLACE", "LoopSettings", "read_settings"]

PLACE = "actor_rollout_ref.rollout.custom.interlace"
"""Where these settings stand: verl leaves `custom` to others."""


# What a tool works on may lie on other machines, where it is made: here its name is looked up.
_Tool = Annotated[
    str, loading(lambda name: find("tool", name, TOOLS)), AfterValidator(without_password)
]


class LoopSettings(BaseModel):
    """How a policy is let act. The names are those of `TrainConfig`, where both have them.

    What is named is loaded when the settings are read, here and in each of verl's processes: a
    module must be importable there, a file must lie in the same place.

    What verl's own keys say is not said again here: `data.max_response_length` are the response's
    tokens, `rollout.n` is the group's size, and `rollout.temperature`, `top_p` and `top_k` sample.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[str, loading(find_format)]
    """How the policy asks for tools."""
    tools: list[_Tool] | None = None
    """python, sql:FILE, search:PATH; sql@rows=3 alone: the database that each task brings; null:
    the database or corpus that a task brings, or python."""
    reward: Annotated[str, loading(find_reward)] = "correct"
    checker: Annotated[str, loading(find_checker)] = "exact"
    """When an answer is right, for tasks that do not say it themselves."""
    keep_instruction: bool = False
    """Whether the questions of public data sets keep what the set says of the form of an answer."""
    overlong_buffer: int = Field(default=0, ge=0)
    """DAPO's soft punishment over the last so many tokens of the response; 0: none."""
    without_void_turns: bool = False
    """Whether episodes with a void turn give no gradient (SimpleTIR)."""
    attempt: Annotated[str, loading(find_attempt)] | None = None
    """Who makes an episode: module:name of an `Attempt` (rollout/many/runner.py), such as a team's
    `attempt`; null: a single agent. With it, use the other keys of recipes/interlace_team.yaml."""
    credit: Annotated[str, loading(find_place)] = "team"
    """team, role, turn, or a function of your own: what of a team's episodes is compared with what
    (train/rewards/team_credit.py)."""
    learns: list[str] | None = None
    """The roles of a team that are trained, the others are frozen; null: all."""
    rewards: str | None = None
    """What single roles are rewarded for, instead of with the team's reward: module:name of a
    function from a `Checker` to a dict of roles and their `Rewards`."""
    strategy: Annotated[str, loading(to_strategy)] | None = None
    """How an attempt is a tree, such as tree@leaves=8,roots=2, each leaf a row; null: one rollout.
    With it, use the other keys of recipes/interlace_tree.yaml."""
    max_turns: int = Field(default=8, ge=1)
    max_calls: int = Field(default=8, ge=0)
    max_tool_tokens: int = Field(default=512, ge=1)
    call_timeout: float = Field(default=30.0, gt=0)
    timeout: float = Field(default=1800.0, gt=0)
    """Wall time of one episode, waiting for the server included."""
    concurrency: int = Field(default=256, ge=1)
    """Trajectories that are sampled at once in one of verl's agent-loop workers: a team has several
    an episode."""
    retries: int = Field(default=1, ge=0)
    """How often an episode that failed on our side is tried again, before it is left out."""
    give_up: int = Field(default=64, ge=1)
    """After so many failures of ours in a row a worker ends, and the run with it."""
    refills: int = Field(default=3, ge=0)
    """How many batches a step may draw anew in place of groups that teach nothing, because all in
    them are right, all wrong, or all failed; then it takes what it has."""
    episodes: str | None = None
    """A folder for all episodes, token by token: `interlace show` reads them. null: none."""

    @model_validator(mode="after")
    def _known(self) -> "LoopSettings":
        if self.attempt is None and (self.credit, self.learns, self.rewards) != (
            "team",
            None,
            None,
        ):
            raise ValueError("credit, learns and rewards are a team's: attempt names the team")
        if self.rewards is not None and self.credit == "team":
            raise ValueError("rewards of single roles want credit=role or credit=turn")
        if self.strategy is not None and self.attempt is not None:
            raise ValueError("strategy makes trees of one policy: a team's attempt goes without")
        if (self.attempt or self.strategy) and self.without_void_turns:
            raise ValueError("without_void_turns is for a single agent, not for a team or a tree")
        return self


def read_settings(custom: Mapping[str, Any] | None) -> LoopSettings:
    """The settings in verl's `rollout.custom`. Raises UsageError, which names the key."""
    given = (custom or {}).get("interlace")
    if given is None:
        raise UsageError(f"{PLACE} is not set: it needs a format, such as {PLACE}.format=retool")
    try:
        return LoopSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join([PLACE, *map(str, first["loc"])])
        raise UsageError(f"{name}: {in_words(first, LoopSettings)}") from error
