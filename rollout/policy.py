"""A policy: a model and how it is let act."""

from collections.abc import Sequence
from dataclasses import replace

from ..tools import Tool
from ..tools.errors import UsageError
from .engines.base import Engine, Sampling
from .formats import Encoder, Format
from .limits import Limits

__all__ = ["Policy"]


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
    ) -> None:
        self.engine = engine
        self.format = format
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            raise UsageError(f"two tools share a name: {sorted(tool.name for tool in tools)}")
        format.check(tools)
        self.sampling = sampling or Sampling()
        self.limits = limits or Limits()
        self.encoder = Encoder(format, engine.tokenizer, tools)

    def with_sampling(self, **changes: float | int | None) -> "Policy":
        """The same policy, sampled otherwise."""
        return Policy(
            self.engine,
            self.format,
            tuple(self.tools.values()),
            sampling=replace(self.sampling, **changes),  # type: ignore[arg-type]
            limits=self.limits,
        )
