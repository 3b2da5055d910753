"""A policy: a model and how it is let act."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from copy import copy
from dataclasses import asdict, replace
from hashlib import blake2b
from typing import Any, TypeVar

from ..tools import Tool
from ..tools.errors import UsageError
from .engines.base import Engine, Sampling
from .formats import Encoder, Format
from .formats.plain import PlainText
from .limits import Limits
from .rollable import RolloutPlan

__all__ = ["Policy"]

V = TypeVar("V")


class Policy:
    """An engine that speaks a format, the tools it is offered, how it samples and its limits.

    Raises UsageError where two tools share a name or the format can't express a call of one.
    """

    def __init__(
        self,
        engine: Engine,
        format: Format,
        tools: Sequence[Tool] = (),
        *,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        system: str = "",
    ) -> None:
        self.engine = engine
        self.format = format
        self.tools = _by_name(format, tools)
        self.sampling = sampling or Sampling()
        self.limits = limits or Limits()
        self.system = system
        """What an application tells the model in its system prompt, before the format does."""
        self.encoder = Encoder(format, engine.tokenizer, tools, system=system)

    @property
    def settings(self) -> dict[str, Any]:
        """The policy's settings, as records keep them: model, format, sampling, limits, and for
        each tool a digest of what the model is told of it.
        """
        sampling = asdict(self.sampling)
        del sampling["seed"]  # each episode has its own
        told = {"system": self.system} if self.system else {}
        return told | {
            "model": self.engine.name,
            "format": self.format.name,
            "sampling": sampling,
            "limits": asdict(self.limits),
            "tools": {name: _digest(tool) for name, tool in self.tools.items()},
        }

    @property
    def early_settings(self) -> dict[str, Any]:
        """All of them: the model is loaded."""
        return self.settings

    async def rollout_plan(self) -> RolloutPlan:
        """One rollout of this policy an episode."""
        return RolloutPlan(self)

    def wait(self, work: Coroutine[Any, Any, V]) -> V:
        """Run async work to its end from sync code, in an event loop of its own.

        Raises RuntimeError inside a running loop: await the work there.
        """
        return asyncio.run(work)

    def with_sampling(self, **changes: float | int | None) -> "Policy":
        """The same policy, sampled otherwise."""
        policy = copy(self)
        policy.sampling = replace(self.sampling, **changes)  # type: ignore[arg-type]
        return policy

    def with_engine(self, engine: Engine) -> "Policy":
        """The same policy, sampled from an engine with the same tokenizer."""
        policy = copy(self)
        policy.engine = engine
        return policy

    def with_limits(self, **changes: int | float) -> "Policy":
        """The same policy, within other limits."""
        policy = copy(self)
        policy.limits = replace(self.limits, **changes)  # type: ignore[arg-type]
        return policy

    def with_system(self, system: str) -> "Policy":
        """The same policy, told other words of an application's own."""
        policy = copy(self)
        policy.system, policy.encoder = system, self.encoder.with_system(system)
        return policy

    def in_words(self) -> "Policy":
        """The same model, asked to say something: plain words, no tools."""
        policy = copy(self)
        policy.format, policy.tools = PlainText(), {}
        policy.encoder = self.encoder.with_format(policy.format, ())
        return policy

    def with_tools(self, tools: Sequence[Tool]) -> "Policy":
        """The same policy, offered other tools. Cheap enough for each task to bring its own.

        Raises as the constructor does, and whatever a tool's description raises.
        """
        policy = copy(self)
        policy.tools = _by_name(self.format, tools)
        policy.encoder = self.encoder.with_tools(tools)
        return policy


def _by_name(format: Format, tools: Sequence[Tool]) -> dict[str, Tool]:
    named = {tool.name: tool for tool in tools}
    if len(named) < len(tools):
        raise UsageError(f"two tools share a name: {sorted(tool.name for tool in tools)}")
    format.check(tools)
    return named


def _digest(tool: Tool) -> str:
    told = [tool.description, tool.arguments.model_json_schema()]
    return blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()
