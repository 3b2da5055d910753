"""From a configuration to what a trainer needs: model, engine, tasks, rewards."""

import asyncio
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...rollout.engines import Engine, Sampling, TransformersEngine
from ...rollout.engines.checkpoint import load_model, pick_device
from ...rollout.formats import FORMATS, Format
from ...rollout.limits import Limits
from ...rollout.model_files import find_model
from ...rollout.models import default_format
from ...rollout.policy import Policy
from ...rollout.tokenizer import Tokenizer
from ...tools import PythonTool, Tool
from ...tools.errors import UsageError
from ..config import TrainConfig
from ..generators.catalog import GENERATORS
from ..rewards import Checker, find_rewards
from ..sources import find_tasks, generate
from ..stream import TaskStream
from ..task_tools import TaskTools, bring_tools
from .logprobs import check_head
from .lora import add_lora
from .rl import Learner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load_trainable", "make_learner", "make_policy"]


@contextmanager
def make_learner(config: TrainConfig, tools: Sequence[Tool] | None = None) -> Iterator[Learner]:
    """Load and connect all that `config` names; leaving it frees the model.

    Without `tools`, tasks that bring a database or a corpus have that, others Python. Raises
    ModelError, UsageError, DataError and MissingExtra in one sentence, before anything has run.
    """
    first = find_tasks(config.tasks, limit=1)
    held_out = find_tasks(config.held_out) if config.held_out else []
    task_tools = TaskTools() if tools is None and bring_tools([*first, *held_out]) else None
    if tools is None:
        tools = () if task_tools is not None else (PythonTool(),)
    generated = config.tasks.partition(":")[0] in GENERATORS
    tasks = generate(config.tasks) if generated else find_tasks(config.tasks)
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
            yield Learner(
                model=model,
                policy=make_policy(config, engine, tools, own_tools=task_tools is not None),
                rewards=find_rewards(
                    config.reward,
                    checker,
                    engine.tokenizer,
                    response_tokens=config.response_tokens,
                    overlong_buffer=config.overlong_buffer,
                ),
                tasks=TaskStream(tasks, config.seed),
                held_out=held_out,
                tools_for=task_tools,
                resource=task_tools,
                reference=reference,
                tokenizer_from=folder,
            )
    finally:
        asyncio.run(engine.aclose())


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
            turns=config.turns,
            calls=config.calls,
            response_tokens=config.response_tokens,
            tool_output_tokens=config.tool_output_tokens,
            call_seconds=config.call_seconds,
            seconds=config.seconds,
        ),
    )


def _format(
    config: TrainConfig, tokenizer: Tokenizer, tools: Sequence[Tool], own_tools: bool
) -> Format:
    suits = "hermes" if own_tools else default_format(config.model, tokenizer, tools)
    name = config.format or suits
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]
