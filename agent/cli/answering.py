"""The agent that the options describe, and how its answers are reported."""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from rich.console import Console

from ...rollout.engines import Sampling
from ...rollout.limits import Limits
from ...rollout.models.files import find_model, is_engine, is_server, local_model
from ...rollout.models.load import trained_formats
from ...rollout.task import Task
from ...rollout.trajectory import StopReason
from ...tools import PythonTool
from ...tools.errors import UsageError
from ...tools.named import task_sql
from ...train.data.task_tools import bring_tools, check_tools
from ..agent import Agent, AnyTool
from ..result import Result
from .exits import Exit
from .options import LimitOptions, ModelOptions, folder_file

__all__ = ["exit_code", "load", "make_agent", "make_task_agent", "warnings"]

_TIERS = {
    "confined": "The model's Python code is confined, though this machine allows no namespaces: "
    "`interlace doctor` lists its walls.",
    "none": "The model's Python code runs as you, without isolation.",
}
"""Warnings if the Python tool's isolation is weaker than `full`."""

_SMALL, _TINY = 200_000_000, 20_000_000
"""Bytes of weights below which a model is faster on one thread, on a busy machine many times; and
below which it can't know anything but what it was trained on here."""


def make_agent(
    model: ModelOptions, limits: LimitOptions, *, temperature: float, **settings: Any
) -> Agent:
    """The agent that the options describe. `temperature` is the command's default; `settings` are
    further arguments of `Agent` (`budget`, `approve`, ...).

    Its model is not loaded yet, but fetched, if need be. Raises UsageError and ModelError.
    """
    tools: list[AnyTool] = []
    for name in model.tool or ["python"]:
        kind, _, backend = name.partition(":")
        if kind == "python" and model.no_isolation:
            tools.append(PythonTool(backend or "sandbox", isolation="none"))
        elif name != "none":
            tools.append(name)
    agent = Agent(
        model.model,
        tools=tools,
        format=model.format,
        limits=Limits(
            max_turns=limits.max_turns,
            max_calls=limits.max_calls,
            max_tokens=limits.max_tokens,
            max_tool_tokens=limits.max_tool_tokens,
            call_timeout=limits.call_timeout,
            timeout=limits.timeout,
        ),
        sampling=Sampling(
            temperature=temperature if model.temperature is None else model.temperature,
            top_p=model.top_p,
            top_k=model.top_k,
            seed=model.seed,
        ),
        device=model.device,
        engine=model.engine,
        engine_options=_engine_options(model.engine_option or []),
        tokenizer=model.tokenizer,
        system=model.system,
        **settings,
    )
    # Fetching may take long: here, before there is an event loop, Ctrl-C ends it at once.
    if not (is_server(model.model) or is_engine(model.model)):
        find_model(model.model)
    if (_weight_bytes(model.model) or _SMALL) < _SMALL:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # heard when torch is imported
    return agent


def _weight_bytes(model: str) -> int | None:
    """The size of a model's weights on this machine, in bytes; None if they are elsewhere."""
    if is_server(model) or is_engine(model) or (folder := local_model(model)) is None:
        return None
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def make_task_agent(
    model: ModelOptions, limits: LimitOptions, tasks: Sequence[Task], *, temperature: float
) -> tuple[Agent, bool | str]:
    """The agent for a run over tasks, and the `task_tools` of that run: True if tasks bring
    databases or corpora and no --tool is given; the tool's name if --tool gives settings for their
    databases alone, such as `sql@rows=3`; else False. Raises as `make_agent` does.
    """
    sql = task_sql(model.tool)
    if model.tool is not None and sql is None:
        return make_agent(model, limits, temperature=temperature), False
    check_tools(tasks)
    if not bring_tools(tasks):
        return make_agent(model, limits, temperature=temperature), False
    # Hermes is the format of a model that can be told of any tool.
    model = replace(model, tool=["none"], format=model.format or "hermes")
    return make_agent(model, limits, temperature=temperature), sql or True


def _engine_options(given: list[str]) -> dict[str, Any]:
    """Values are JSON (`2`, `true`, `0.9`), or else text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--engine-option {each}: write NAME=VALUE, such as max_batch=256")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


async def load(agent: Agent, console: Console, *, quiet: bool) -> None:
    """Load the model and start the tools; a terminal shows a spinner meanwhile."""
    status = console.status(f"loading {agent.model}", spinner="dots")
    with nullcontext() if quiet or not console.is_terminal else status:
        await asyncio.gather(agent.policy(), agent.start_tools())


def warnings(agent: Agent, *, settings_file: bool = True) -> Iterator[str]:
    """Yield the warnings to print before the first question, once the tools are started; without
    `settings_file` not the one that interlace.toml in the working directory sets options.
    """
    if settings_file and (file := folder_file()).is_file():
        yield f"{file} in this folder sets options: see interlace config"
    if agent.model == "nano":
        yield "nano is a tiny demonstration model: it knows its tasks and nothing else."
    elif isinstance(agent.model, str) and (_weight_bytes(agent.model) or _TINY) < _TINY:
        yield (
            f"{agent.model} is tiny: it answers single questions of the kind that it was trained "
            "on, and makes up the rest."
        )
    known = trained_formats(agent.model) if isinstance(agent.model, str) else ()
    if known and agent.format is not None and agent.format.name not in known:
        yield (
            f"{agent.model} was never trained in the format {agent.format.name} and may write "
            f"nonsense in it: it was trained in {', '.join(known)}."
        )
    if why := getattr(agent.engine, "why", ""):
        yield f"The server speaks text only ({why}): what it says can't be trained on."
    for tool in agent.tools:
        if isinstance(tool, PythonTool) and tool.tier in _TIERS:
            yield _TIERS[tool.tier]


def exit_code(result: Result) -> Exit:
    """The exit code for the end of a question."""
    if result.stop is StopReason.ANSWERED:
        return Exit.DONE
    if result.stop is StopReason.BUDGET:
        return Exit.BUDGET
    if result.denied and result.stop is not StopReason.INFRASTRUCTURE:
        return Exit.APPROVAL
    return Exit.UNAVAILABLE if result.stop is StopReason.INFRASTRUCTURE else Exit.NO_ANSWER
