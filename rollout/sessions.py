"""A trajectory's sessions of its tools: each opened at the first call, all closed at the end."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack

from ..tools import (
    Budgeted,
    ErrorKind,
    LiveSession,
    StartedSession,
    Tool,
    ToolResult,
    ToolSession,
)
from ..tools.base import INTERRUPTED
from ..tools.errors import InterlaceError
from .admission import Phase, SamplingGate
from .clock import Clock
from .engines.base import EngineError
from .formats import Call
from .policy import Policy
from .trajectory import Trajectory

__all__ = ["GRACE_SECONDS", "Sessions", "ToolFailed", "describe_error"]

# A tool has to keep its own deadline; this much later we stop waiting for it, so that one that
# hangs can't hang a run of many.
GRACE_SECONDS = 15.0


class ToolFailed(Exception):
    """A tool failed on our side: the trajectory ends, and the policy is not to blame."""


def describe_error(error: Exception) -> str:
    """The failure in one sentence; our own errors say it themselves."""
    ours = isinstance(error, InterlaceError | EngineError | ToolFailed)
    return str(error) if ours else f"{type(error).__name__}: {error}".rstrip(": ")


class Sessions:
    """The state that tools keep for one trajectory: variables, files, connections."""

    def __init__(self, sampling_gate: SamplingGate) -> None:
        self._gate = sampling_gate
        self._open: dict[str, _Open] = {}
        self._stack = AsyncExitStack()

    async def call(
        self,
        policy: Policy,
        trajectory: Trajectory,
        call: Call,
        on_output: Callable[[str], None] | None,
        clock: Clock,
    ) -> ToolResult:
        """Run a call of one of the policy's tools; `on_output` gets what it shows while it runs.

        What a tool raises is our failure: for the model's it returns a result. On the question's
        `clock` is the call, up to its own limit, and what a session that ran calls before takes to
        start anew.
        """
        seconds = policy.limits.call_timeout
        try:
            with self._gate.metrics.during(Phase.QUEUED), ExitStack() as first:
                if call.tool not in self._open:
                    patience = self._gate.patience
                    late = f"the tool {call.tool!r} did not start within {patience:g} s"
                    first.enter_context(clock.stopped(patience, late))
                opened = await self._session(policy, trajectory, call.tool)
            if on_output is not None and opened.live is not None:
                opened.live.on_output = on_output
            with clock.at_most(seconds):
                async with asyncio.timeout(seconds + GRACE_SECONDS):
                    return await opened.session.call(call.arguments or {}, seconds)
        except Exception as error:  # boundary: around a tool
            text = f"the tool {call.tool!r} failed: {describe_error(error)}"
            return ToolResult(text, ErrorKind.UNAVAILABLE)

    def interrupted(self, name: str) -> ToolResult:
        """The result of the tool's last call up to when it was cancelled."""
        opened = self._open.get(name)
        partial = opened.live.interrupted if opened is not None and opened.live else None
        return partial or ToolResult(INTERRUPTED, ErrorKind.INTERRUPTED)

    async def aclose(self) -> None:
        """Close them all."""
        await self._stack.aclose()

    async def _session(self, policy: Policy, trajectory: Trajectory, name: str) -> "_Open":
        """The session of a tool, ready for a call."""
        opened = self._open.get(name)
        if opened is None:
            opening = _within_budget(policy, policy.tools[name]).session()
            opened = self._open[name] = _Open(await self._stack.enter_async_context(opening))
        if opened.live is not None:
            opened.live.interrupted = None
        if opened.started is not None:
            await opened.started.ready()
            trajectory.tools[name] = dict(opened.started.details)
        return opened


class _Open:
    """A session, and what it can do: asking a protocol takes as long as a short call."""

    def __init__(self, session: ToolSession) -> None:
        self.session = session
        self.live = session if isinstance(session, LiveSession) else None
        self.started = session if isinstance(session, StartedSession) else None


def _within_budget(policy: Policy, tool: Tool) -> Tool:
    """A tool that knows what can be spared shortens its results better than `truncate_middle`."""
    if not isinstance(tool, Budgeted):
        return tool
    encode = policy.engine.tokenizer.encode
    return tool.within(policy.limits.max_tool_tokens, lambda text: len(encode(text)))
