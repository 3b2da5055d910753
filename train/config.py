"""The configuration of a training run: typed, from a YAML file and flags, all defaults in sight."""

import functools
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticKnownError

from ..rollout.formats import FORMATS, Format, find_format
from ..rollout.limits import EARLIER_NAMES
from ..rollout.many.runner import Attempt
from ..rollout.many.strategies import STRATEGIES, Strategy, find_strategy
from ..rollout.task import Task
from ..tools import Tool
from ..tools.errors import DataError, MissingExtra, UsageError
from ..tools.files import read_text
from ..tools.importing import parse_name, refuse_code
from ..tools.named import TOOLS, as_tool, task_sql, without_password
from .data.sources import refuse_task_code
from .objectives import (
    AGGREGATIONS,
    IMPORTANCE_LEVELS,
    KL_ESTIMATORS,
    OBJECTIVES,
    Objective,
    find_objective,
)
from .rewards import (
    CHECKERS,
    REWARDS,
    RewardLike,
    SameAnswer,
    find_checker,
    find_reward,
)
from .rewards.team_credit import CREDITS, Place, find_credit
from .rewards.tree_credit import TREE_CREDITS
from .team import RoleRewards, find_attempt

__all__ = [
    "Resolved",
    "TaskSource",
    "TrainConfig",
    "absolute_names",
    "in_words",
    "loading",
    "name_of",
    "parse_value",
    "read_config",
    "read_yaml",
]


TaskSource: TypeAlias = str | Sequence[Task] | Callable[[], Iterable[Task]]
"""Tasks by name (`train/data/sources.py`), or a list of them, or a function that makes it."""
_GIVEN_IN_PYTHON = ", given in Python>"


def name_of(thing: Any) -> Any:
    """The name under which a thing given in Python is found again, or a note that there is none."""
    if thing is None or isinstance(thing, str):
        return thing
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    path = getattr(thing, "__qualname__", "")
    try:
        found = functools.reduce(getattr, path.split("."), module)
    except AttributeError:  # a local function, or an object that is no function or class
        found = None
    if found is not thing or module is None or module.__name__ == "__main__":
        return f"<{path or type(thing).__name__}{_GIVEN_IN_PYTHON}"
    is_file = module.__name__.startswith("interlace_file_")
    return f"{module.__file__ if is_file else module.__name__}:{path}"


def loading(find: Callable[[Any], Any] | None = None) -> PlainValidator:
    """A name or, in Python, the thing itself; `find` sees that it is there."""

    def check(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | dict):  # from YAML, no name
            raise PydanticKnownError("string_type")
        try:
            if find is not None:
                find(value)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return value

    return PlainValidator(check)


def to_strategy(given: str | Strategy) -> Strategy:
    """The strategy of that name, or the one given. Raises UsageError if it is missing, and for one
    of ours that makes no tree.
    """
    if not isinstance(given, str):
        return given
    if given.partition("@")[0] in STRATEGIES.keys() - {"tree"}:
        raise UsageError(
            f"strategy={given} makes no tree to train on: name tree@8, or a strategy of your own"
        )
    return find_strategy(given)


def _as_format(given: str | Format | type[Format]) -> Format:
    if isinstance(given, str):
        return find_format(given)
    return given() if isinstance(given, type) else given


_NAMED = PlainSerializer(name_of, when_used="json")
_Format = Annotated[str | Format | type[Format], loading(_as_format), _NAMED]
_Tool = Annotated[
    str | Tool | Callable[..., Any], loading(), AfterValidator(without_password), _NAMED
]
_Tasks = Annotated[TaskSource, loading(), _NAMED]
_Reward = Annotated[str | RewardLike, loading(find_reward), _NAMED]
_Checker = Annotated[str | SameAnswer, loading(find_checker), _NAMED]
_Objective = Annotated[str | Objective | Callable[[], Objective], loading(find_objective), _NAMED]
_Attempt = Annotated[str | Attempt, loading(find_attempt), _NAMED]
_Credit = Annotated[str | Place, loading(find_credit), _NAMED]
_Strategy = Annotated[str | Strategy, loading(to_strategy), _NAMED]
_RoleRewards = Annotated[str | RoleRewards, loading(), _NAMED]
_Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(BaseModel):
    """The settings of a reinforcement learning run. Flat, so that each value is a flag too.

    Where a name is asked for, a program may give the thing itself: a reward's function, an
    `Objective`, a list of tasks, tools, a format. What is named is loaded when the configuration is
    made, but for tools and tasks, which `train.local.training_setup.check_run` loads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # The policy.
    model: str = "nano"
    """nano, smollm2, a folder or a Hugging Face id."""
    format: _Format | None = None
    """How it asks for tools; null: what suits the model."""
    tools: list[_Tool] | None = None
    """python, sql:FILE, search:PATH; sql@rows=3 alone: the database that each task brings; null:
    the database or corpus that a task brings, or python."""
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    """The trainer's compute dtype; the weights in training stay float32."""
    lora_rank: int = Field(default=0, ge=0)
    """0: all weights are trained."""
    lora_alpha: float = Field(default=32.0, gt=0)
    gradient_checkpointing: bool = False
    """Recompute layers for the gradient: less memory, a third more time."""

    # The tasks.
    tasks: _Tasks = "arithmetic:train"
    """A file, or GENERATOR:SPLIT:COUNT:SEED; of a generator, training takes endlessly many."""
    databases: str | None = None
    """The folder of the databases that tasks name (BIRD, Spider); null: tasks bring theirs."""
    held_out: _Tasks | None = None
    """The same for evaluation; null: none."""
    reward: _Reward = "correct"
    """The recipe's name, or a function of an episode and its task: see docs/rewards.md."""
    checker: _Checker = "exact"
    """How answers are checked, for tasks that don't name a checker."""
    overlong_buffer: int = Field(default=0, ge=0)
    """DAPO's soft punishment over the last so many of `max_tokens`; 0: none."""

    # A team.
    attempt: _Attempt | None = None
    """What makes an episode, such as a team's `attempt`: see docs/team.md. null: one rollout."""
    credit: _Credit = "team"
    """What is compared with what, of a team's episodes: team, role or turn; of trees: team (whole
    leaves), leaves or nodes."""
    learns: list[str] | None = None
    """The roles of a team that are trained, the others are frozen; null: all."""
    rewards: _RoleRewards | None = None
    """What single roles are rewarded for, instead of with the team's reward."""

    # How a group is rolled out.
    strategy: _Strategy | None = None
    """How an attempt is a tree, such as tree@leaves=8,roots=2: docs/train.md. null: one rollout."""
    tasks_per_step: int = Field(default=16, ge=1)
    group_size: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0, le=100)
    max_turns: int = Field(default=8, ge=1)
    max_calls: int = Field(default=8, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    max_tool_tokens: int = Field(default=256, ge=1)
    call_timeout: float = Field(default=10.0, gt=0)
    timeout: float = Field(default=300.0, gt=0)
    """Wall time of one episode."""
    concurrency: int = Field(default=64, ge=1)

    # The update.
    objective: _Objective = "dapo"
    loss_agg_mode: str | None = None
    """null: the objective's, as for the next three."""
    clip_ratio_low: float | None = Field(default=None, gt=0)
    clip_ratio_high: float | None = Field(default=None, gt=0)
    dynamic_sampling: bool | None = None
    """Replace groups that are all right or all wrong."""
    refills: int = Field(default=3, ge=0)
    """Rounds of new groups that a step may draw for that; it then trains on what it has."""
    without_void_turns: bool = False
    """Give episodes with a void turn no gradient (SimpleTIR)."""
    importance_level: str = "token"
    importance_cap: float | None = Field(default=2.0, gt=0)
    """Cap of the weights for the gap between engine and trainer; null: no weights."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Above 0 a reference model is kept."""
    kl_estimator: str = "k3"

    # The optimizer (AdamW).
    steps: int = Field(default=100, ge=1)
    epochs: int = Field(default=1, ge=1)
    """Passes over a step's episodes."""
    minibatches: int = Field(default=1, ge=1)
    """Updates per epoch."""
    micro_tokens: int = Field(default=16384, ge=1)
    """Tokens per forward pass, padding included; it changes memory use only."""
    pack_prefixes: bool = True
    """Compute the tokens with which episodes begin alike once, where that saves work: the same
    gradient, for trees in a fraction of the time."""
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up; the learning rate is constant afterwards."""
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    clip_norm: float = Field(default=1.0, gt=0)
    patience: int = Field(default=3, ge=1)
    """Stop the run after this many updates in a row that are not finite."""

    # The run.
    out: str = "runs/train"
    """Its folder."""
    seed: int = Field(default=0, ge=0)
    deterministic: bool = False
    """One episode at a time: slow, and a resumed run ends in the same bits (on a CPU)."""
    evaluate_every: int = Field(default=10, ge=1)
    save_every: int = Field(default=10, ge=1)
    tensorboard: bool = False
    wandb: str | None = None
    """A project's name; null: not used."""
    plot: bool = False
    """Write a plot of the run to its folder at the end."""

    @model_validator(mode="after")
    def _known(self) -> "TrainConfig":
        for name, value, known in (
            ("loss_agg_mode", self.loss_agg_mode, AGGREGATIONS),
            ("importance_level", self.importance_level, IMPORTANCE_LEVELS),
            ("kl_estimator", self.kl_estimator, KL_ESTIMATORS),
        ):
            if value is not None and value not in known:
                near = get_close_matches(str(value), known, 1)
                hint = f": did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r}{hint}")
        if self.overlong_buffer > self.max_tokens:
            raise ValueError("overlong_buffer can't be above max_tokens")
        tree = self.credit if self.credit in TREE_CREDITS else None
        if self.strategy is not None and self.attempt is not None:
            raise ValueError("strategy makes trees of one policy: a team's attempt goes without")
        if self.strategy is None and tree is not None:
            raise ValueError(f"credit={tree} is for trees: strategy names one, such as tree@8")
        if self.attempt is None and (
            (self.learns, self.rewards) != (None, None) or (tree is None and self.credit != "team")
        ):
            raise ValueError("credit, learns and rewards are a team's: attempt names the team")
        if self.rewards is not None and self.credit == "team":
            raise ValueError("rewards of single roles want credit=role or credit=turn")
        try:
            self.to_objective()
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def to_format(self) -> Format | None:
        """The format, or None for what suits the model."""
        return None if self.format is None else _as_format(self.format)

    def to_tools(self) -> list[Tool] | None:
        """The tools, or None if tasks may bring their own. Raises UsageError for unknown names."""
        if self.tools is None or task_sql(self.tools):
            return None
        return [as_tool(each) for each in self.tools if each != "none"]

    def to_objective(self) -> Objective:
        """The objective with what is said otherwise here.

        Raises UsageError for an unknown name and for numbers that don't go together.
        """
        objective = find_objective(self.objective)
        clips = {
            name: value
            for name in ("clip_ratio_low", "clip_ratio_high")
            if (value := getattr(self, name)) is not None
        }
        dynamic = self.dynamic_sampling
        return replace(
            objective,
            config=replace(objective.config, **clips),
            loss_agg_mode=self.loss_agg_mode or objective.loss_agg_mode,
            dynamic_sampling=objective.dynamic_sampling if dynamic is None else dynamic,
        )

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup))


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration, and where each value came from: `default`, `flag`, or the file's name."""

    config: TrainConfig
    origins: Mapping[str, str]

    def to_yaml(self) -> str:
        """All values with their origins as comments; `read_yaml` reads it back."""
        yaml = _yaml()
        lines = []
        for name, value in self.config.model_dump(mode="json").items():
            # As in a list, so that each value stands on one line.
            text = yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
            lines.append(f"{f'{name}: {text}':40}  # {self.origins[name]}")
        return "\n".join(lines) + "\n"


_KINDS_OF_NAMES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "format": ("format", FORMATS),
    "tools": ("tool", TOOLS),
    "reward": ("reward", REWARDS),
    "checker": ("checker", CHECKERS),
    "objective": ("objective", OBJECTIVES),
    "attempt": ("attempt", {}),
    "credit": ("credit", CREDITS | TREE_CREDITS),
    "strategy": ("strategy", STRATEGIES),
    "rewards": ("rewards", {}),
}
"""The settings that may name code: the kind of each, and interlace's own names."""
_TASKS = ("tasks", "held_out")
"""Settings that may name code or a file, by a grammar that is a little wider."""


def read_config(file: Path | None, flags: Mapping[str, Any], *, trusted: bool = True) -> Resolved:
    """The configuration of a file, with flags above it, defaults beneath.

    A path in a name of the file, such as `reward: mine.py:terse`, is relative to it, one in a flag
    to the working folder. A file that is not `trusted`, such as a run's, may name no code: what it
    names must be among the flags. Raises DataError if the file can't be read, UsageError for what
    makes no sense.

    Example:
        >>> resolved = read_config(None, {"steps": 5})
        >>> resolved.config.steps, resolved.origins["steps"], resolved.origins["seed"]
        (5, 'flag', 'default')
    """
    given = {} if file is None else read_yaml(file)
    asked = {name: given[name] for name in given if name not in flags}
    if lost := [name for name, value in asked.items() if _GIVEN_IN_PYTHON in str(value)]:
        raise UsageError(
            f"{file}: {', '.join(lost)} were given in Python, and no file can name them: give them "
            f"again, such as --set {lost[0]}=module:name"
        )
    if not trusted:
        _refuse_code(asked, file)
        given = {EARLIER_NAMES.get(name, name): value for name, value in given.items()}
    if file is not None:
        given = absolute_names(given, file.parent)
    flags = absolute_names(flags, Path.cwd())
    origins = dict.fromkeys(TrainConfig.model_fields, "default")
    origins |= dict.fromkeys(given, str(file)) | dict.fromkeys(flags, "flag")
    try:
        config = TrainConfig.model_validate(given | dict(flags))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "the configuration"
        where = origins.get(name, "")
        said = in_words(first, TrainConfig)
        raise UsageError(f"{name}{f' ({where})' if where else ''}: {said}") from error
    return Resolved(config, origins)


def _refuse_code(given: Mapping[str, Any], file: Path | None) -> None:
    """Raise UsageError if one of the settings would load code."""
    again = []
    for setting, value in given.items():
        names = [
            each
            for each in (value if isinstance(value, list) else [value])
            if isinstance(each, str)
        ]
        try:
            if setting in _TASKS:
                for name in names:
                    refuse_task_code(name, file)
            elif setting in _KINDS_OF_NAMES:
                kind, table = _KINDS_OF_NAMES[setting]
                refuse_code(kind, names, table, file)
        except UsageError:
            text = value if isinstance(value, str) else json.dumps(value)
            again.append(f"--set {shlex.quote(f'{setting}={text}')}")
    if again:
        raise UsageError(
            f"{file} names what would load code, and a run's folder may be anybody's: name it "
            f"again with {' '.join(sorted(again))}"
        )


def absolute_names(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings with the files of code that names begin with as absolute paths."""

    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(each) for each in value]
        if not isinstance(value, str):
            return value
        name = parse_name(value)
        if not (name.head.endswith(".py") and name.source):
            return value
        return f"{(folder / name.head).resolve()}{value[len(name.head) :]}"

    return {
        key: absolute(value) if key in (*_KINDS_OF_NAMES, *_TASKS) else value
        for key, value in given.items()
    }


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list, such as [python]",
    "tuple": "a list",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def in_words(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Explain to a person why a setting is invalid, from the error that pydantic found in `model`.

    Example:
        >>> try:
        ...     TrainConfig.model_validate({"temperatur": 1})
        ... except ValidationError as error:
        ...     print(in_words(error.errors()[0], TrainConfig))
        there is no such setting: did you mean temperature?
    """
    kind, given, limits = error["type"], f"{error['input']!r:.60}", error.get("ctx", {})
    name, *inside = map(str, error["loc"] or ("",))
    if kind == "extra_forbidden":
        near = get_close_matches(name, model.model_fields, 3)
        if (renamed := EARLIER_NAMES.get(name)) in model.model_fields:
            near = [renamed]
        return "there is no such setting" + (f": did you mean {' or '.join(near)}?" if near else "")
    if kind == "missing" and not inside:
        return "is not set"
    field = model.model_fields.get(name)
    such = ""
    if inside and field is not None and isinstance(field.default, list | tuple) and field.default:
        such = f", as in {list(field.default)}"
    if kind in _BOUNDS:
        key, word = _BOUNDS[kind]
        return f"must be {word} {limits[key]:g}, not {given}{such}"
    if kind == "finite_number":
        return f"must be a number that is finite, not {given}{such}"
    if kind == "literal_error":
        return f"must be {limits['expected']}, not {given}"
    if kind in ("missing", "too_long", "too_short"):
        return f"has too {'many' if kind == 'too_long' else 'few'} values{such}"
    wanted = _KINDS.get(kind.partition("_")[0])
    if wanted is not None:
        return f"must be {wanted}, not {given}{such}"
    return error["msg"].removeprefix("Value error, ")


_LONGEST_FILE = 1_000_000
"""Bytes of a file of settings."""


def read_yaml(file: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises DataError if it can't be read or is not a mapping."""
    yaml = _yaml()
    try:
        given = yaml.load(read_text(file, most=_LONGEST_FILE, or_pipe=True), _loader())
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of many digits
        raise DataError(f"can't read {file}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DataError(f"can't read {file}: its brackets are nested too deeply") from error
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise DataError(f"{file} holds no settings: write lines such as `steps: 100`")
    return {str(name): value for name, value in given.items()}


def parse_value(text: str) -> Any:
    """Parse a value as in the file: `16`, `null`, `[python, "sql:a.db"]`. Raises UsageError."""
    yaml = _yaml()
    try:
        return yaml.load(text, _loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = "its brackets are nested too deeply"
        said = why if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UsageError(f"{text[:60]!r} is no value: {said}") from error


@cache
def _loader() -> Any:
    """PyYAML's safe loader, but for keys that occur in a mapping twice: it takes the last."""
    yaml = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc,name-defined]  # yaml is imported late
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            lines: dict[str, int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.value in lines:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands on line {lines[key.value]} and again on "
                        f"line {line}: leave one out", None,
                    )  # fmt: skip
                lines[key.value] = line
            return super().construct_mapping(node, deep=deep)

    return Loader


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("a configuration file", "train") from error
    return yaml
