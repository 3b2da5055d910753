"""From a configuration to what a trainer needs: model, engine, tasks, rewards."""

import asyncio
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...rollout.engines import Engine, Sampling, TransformersEngine
from ...rollout.engines.local.load_checkpoint import load_model, pick_device
from ...rollout.formats import Encoder, Format, find_format
from ...rollout.limits import Limits
from ...rollout.models.files import find_model, local_model
from ...rollout.models.load import default_format
from ...rollout.policy import Policy
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...tools import PythonTool, Tool
from ...tools.errors import UsageError
from ...tools.named import task_sql
from ..config import TrainConfig, name_of, to_strategy
from ..data.sources import find_tasks, find_training_tasks
from ..data.stream import TaskStream
from ..data.task_tools import TaskTools, bring_tools, check_tools
from ..rewards import Checker, Rewards, find_rewards
from ..rewards.team_credit import Credit, find_credit
from ..team import find_attempt, find_role_rewards
from .logprobs import check_head
from .lora import add_lora
from .rl import TrainingSetup

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_run", "load_trainable", "make_policy", "make_setup"]


@dataclass(frozen=True, slots=True)
class _Tasks:
    """The tasks of a run, and what they are solved with."""

    training: list[Task] | Iterator[Task]
    held_out: list[Task]
    tools: Sequence[Tool]
    own: TaskTools | None
    """Where tasks bring their tools."""


def _load_tasks(
    config: TrainConfig, tools: Sequence[Tool] | None, tell: Callable[[str], None] | None = None
) -> _Tasks:
    """All that can be known of the tasks before a model is loaded. Raises UsageError, DataError."""

    def given(tasks: Any) -> list[Task]:
        if isinstance(tasks, Iterator):
            raise UsageError("tasks are read more than once: give a list, or a function")
        made = list(tasks() if callable(tasks) else tasks)
        if odd := [each for each in made if not isinstance(each, Task)]:
            raise UsageError(f"tasks are a list of interlace.Task, and one is {odd[0]!r:.60}")
        return made

    held_out: list[Task] = []
    if isinstance(config.held_out, str):
        held_out = find_tasks(config.held_out, databases=config.databases, tell=tell)
    elif config.held_out is not None:
        held_out = given(config.held_out)
    training: list[Task] | Iterator[Task]
    if isinstance(config.tasks, str):
        training = find_training_tasks(config.tasks, databases=config.databases, tell=tell)
    else:
        training = given(config.tasks)
    if not isinstance(training, list):
        looked_at = [*find_tasks(str(config.tasks), limit=1), *held_out]
    else:
        looked_at = [*training, *held_out]
        if len(training) < config.tasks_per_step:
            raise UsageError(
                f"a step needs {config.tasks_per_step} tasks (tasks_per_step), there are "
                f"{len(training)} in {name_of(config.tasks)}"
            )
    tools = config.to_tools() if tools is None else tools
    if tools is not None:
        return _Tasks(training, held_out, tools, None)
    check_tools(looked_at)
    if bring_tools(looked_at):
        return _Tasks(training, held_out, (), TaskTools(sql=task_sql(config.tools) or "sql"))
    if config.tools is not None:
        raise UsageError(
            'these tasks bring no database: name one for all, as in --set tools=["sql:FILE"]'
        )
    if "reex_sql" in (config.reward, config.format):
        raise UsageError(
            "reex_sql is for questions on a database, and these tasks bring none: give each a "
            'database, the path of its file, or name one for all with --set tools=["sql:FILE"]'
        )
    return _Tasks(training, held_out, (PythonTool(),), None)


def check_run(config: TrainConfig, tools: Sequence[Tool] | None = None) -> None:
    """See that tasks, tools, format and reward go together, without a model: its tokenizer, where
    it is on this machine, is all that is loaded of it. Raises as `make_setup` does.
    """
    found = _load_tasks(config, tools)
    folder = local_model(config.model)
    tokenizer = None if folder is None else Tokenizer.load(folder)
    with Checker(default=config.checker) as checker:
        find_role_rewards(config.rewards, checker)
        if tokenizer is not None:
            _rewards(config, checker, tokenizer)
    asyncio.run(_check_format(config, found, tokenizer))


async def _check_format(config: TrainConfig, found: _Tasks, tokenizer: Tokenizer | None) -> None:
    async with AsyncExitStack() as stack:
        tools = found.tools
        if found.own is not None:
            own = await stack.enter_async_context(found.own)
            tools = own(next(iter(found.training)))
        format = config.to_format()
        if format is None and tokenizer is not None:
            format = _format(config, tokenizer, found.tools, found.own is not None)
        if format is None:
            return  # what suits a model follows from its files
        format.check(tools)
        if tokenizer is not None:
            Encoder(format, tokenizer, tools)


@contextmanager
def make_setup(
    config: TrainConfig,
    tools: Sequence[Tool] | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> Iterator[TrainingSetup]:
    """Load and connect all that `config` names; leaving it frees the model.

    `tools` take the place of the configuration's. Without any, tasks that bring a database or a
    corpus have that, others Python. `tell` is
    given a sentence on rows of files that were left out. Raises ModelError, UsageError, DataError
    and MissingExtra in one sentence, before anything has run.
    """
    found = _load_tasks(config, tools, tell)
    folder = find_model(config.model)
    model = load_trainable(folder, config)
    reference = copy.deepcopy(model) if config.kl_weight and not config.lora_rank else None
    engine = TransformersEngine.load(
        folder,
        device=config.device,
        max_batch=1 if config.deterministic else config.concurrency,
    )
    engine.name = config.model
    try:
        with Checker(default=config.checker) as checker:
            yield TrainingSetup(
                model=model,
                policy=make_policy(config, engine, found.tools, own_tools=found.own is not None),
                rewards=_rewards(config, checker, engine.tokenizer),
                tasks=TaskStream(found.training, config.seed),
                held_out=found.held_out,
                tools_for=found.own,
                attempt=None if config.attempt is None else find_attempt(config.attempt),
                strategy=None if config.strategy is None else to_strategy(config.strategy),
                credit=_credit(config, checker),
                resource=found.own,
                reference=reference,
                tokenizer_from=folder,
            )
    finally:
        asyncio.run(engine.aclose())


def _rewards(config: TrainConfig, checker: Checker, tokenizer: Tokenizer) -> Rewards:
    return find_rewards(
        config.reward,
        checker,
        tokenizer,
        response_tokens=config.max_tokens,
        overlong_buffer=config.overlong_buffer,
    )


def _credit(config: TrainConfig, checker: Checker) -> Credit | None:
    if config.attempt is None and config.strategy is None:
        return None
    own = find_role_rewards(config.rewards, checker)
    return find_credit(config.credit, rewards=own, learns=config.learns)


def load_trainable(folder: Path, config: TrainConfig) -> "PreTrainedModel":
    """The model of a folder, ready to be trained: without dropout, whole or with adapters.

    Dropout would be noise that the engine does not have: the policy that is trained would be
    another one than that which sampled. Raises ModelError, and MissingExtra without peft.
    """
    import torch

    half = config.lora_rank > 0 and config.precision == "bfloat16"
    loaded: Any = load_model(folder, pick_device(config.device), "bfloat16" if half else "float32")
    model: PreTrainedModel = loaded
    check_head(model)
    module: Any
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    if config.lora_rank:
        torch.manual_seed(config.seed)
        add_lora(model, config.lora_rank, config.lora_alpha)
    if config.gradient_checkpointing:
        # transformers is about to give it this name; older ones have the other alone.
        recompute: Callable[[dict[str, bool]], None] = getattr(
            model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
        )
        recompute({"use_reentrant": False})
        model.train()  # without dropout this says no more than: compute layers again
    return model


def make_policy(
    config: TrainConfig, engine: Engine, tools: Sequence[Tool], *, own_tools: bool = False
) -> Policy:
    """The policy that `config` describes, sampled from `engine`. `own_tools`: tasks bring theirs.

    Raises UsageError for a format that there is not, or that can't call the tools.
    """
    return Policy(
        engine,
        _format(config, engine.tokenizer, tools, own_tools),
        tools,
        sampling=Sampling(temperature=config.temperature),
        limits=Limits(
            max_turns=config.max_turns,
            max_calls=config.max_calls,
            max_tokens=config.max_tokens,
            max_tool_tokens=config.max_tool_tokens,
            call_timeout=config.call_timeout,
            timeout=config.timeout,
        ),
    )


def _format(
    config: TrainConfig, tokenizer: Tokenizer, tools: Sequence[Tool], own_tools: bool
) -> Format:
    if (format := config.to_format()) is not None:
        return format
    return find_format(default_format(config.model, tokenizer, tools, any_tool=own_tools))
