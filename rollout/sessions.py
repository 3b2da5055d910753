"""A trajectory's sessions of its tools: each opened at the first call, all closed at the end."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ..tools import (
    Budgeted,
    ClosableSession,
    ErrorKind,
    LiveSession,
    StartedSession,
    StatelessSession,
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
        self._ran: list[_Ran] = []
        self._lacking: dict[str, list[_Ran]] = {}  # calls to run again when the tool is needed

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
        start again.
        """
        seconds = policy.limits.call_timeout
        try:
            with self._gate.metrics.during(Phase.QUEUED), ExitStack() as first:
                if call.tool not in self._open or call.tool in self._lacking:
                    patience = self._gate.patience
                    late = f"the tool {call.tool!r} did not start within {patience:g} s"
                    first.enter_context(clock.stopped(patience, late))
                opened = await self._session(policy, trajectory, call.tool)
            if on_output is not None and opened.live is not None:
                opened.live.on_output = on_output
            ran = _Ran(len(trajectory.turns) - 1, call.tool, call.arguments or {})
            if not opened.stateless:
                self._ran.append(ran)
            with clock.at_most(seconds):
                async with asyncio.timeout(seconds + GRACE_SECONDS):
                    result = await opened.session.call(ran.arguments, seconds)
            ran.shown = result.text, result.error
            return result
        except Exception as error:  # boundary: around a tool
            text = f"the tool {call.tool!r} failed: {describe_error(error)}"
            return ToolResult(text, ErrorKind.UNAVAILABLE)

    def interrupted(self, name: str) -> ToolResult:
        """The result of the tool's last call up to when it was cancelled."""
        opened = self._open.get(name)
        partial = opened.live.interrupted if opened is not None and opened.live else None
        return partial or ToolResult(INTERRUPTED, ErrorKind.INTERRUPTED)

    async def fork(self, policy: Policy, turns: int) -> "Sessions":
        """Sessions in the state that these had after so many turns; these stay as they are.

        A session that has run no call since then is copied. Where that cannot be, the calls up to
        there are run again when the copy's tool is needed, and their results compared
        (`Branch.replayed`). Where a tool's session keeps nothing, there is nothing to copy.
        """
        child = Sessions(self._gate)
        child._ran = [ran for ran in self._ran if ran.turn < turns]
        try:
            for name in dict.fromkeys(ran.tool for ran in child._ran):
                # A session whose own calls still have to be run again is not copied.
                since = any(ran.tool == name and ran.turn >= turns for ran in self._ran)
                copied = name in self._open and name not in self._lacking and not since
                if not (copied and await child._copy(policy, name, self._open[name])):
                    child._lacking[name] = [ran for ran in child._ran if ran.tool == name]
        except BaseException:
            await child.aclose()
            raise
        return child

    async def _copy(self, policy: Policy, name: str, original: "_Open") -> bool:
        """Copy another one's session of a tool. Return False where it can't be copied."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(GRACE_SECONDS):
                    session = await original.session.fork()
                    if isinstance(session, ClosableSession):
                        stack.push_async_callback(session.close)
                    # One of our own keeps the tool in use, whoever closes first.
                    await stack.enter_async_context(_opening(policy, name))
            except Exception:  # boundary: around a tool; its calls are run again
                return False
            self._open[name] = _Open(session)
            self._stack.push_async_callback(stack.pop_all().aclose)
        return True

    async def _run_again(self, policy: Policy, trajectory: Trajectory, name: str) -> None:
        """Bring a new session into the state of the one that it could not be copied from.

        Raises ToolFailed where the tool fails.
        """
        seconds = policy.limits.call_timeout
        for ran in self._lacking[name]:
            async with asyncio.timeout(seconds + GRACE_SECONDS):
                result = await self._open[name].session.call(ran.arguments, seconds)
            if result.error is ErrorKind.UNAVAILABLE:
                raise ToolFailed(result.text)
            changed = (result.text, result.error) != ran.shown
            if (branch := trajectory.branch) is not None:
                counts = branch.replayed + 1, branch.changed + changed
                trajectory.branch = replace(branch, replayed=counts[0], changed=counts[1])
        del self._lacking[name]

    async def aclose(self) -> None:
        """Close them all."""
        await self._stack.aclose()

    async def _session(self, policy: Policy, trajectory: Trajectory, name: str) -> "_Open":
        """The session of a tool, ready for a call."""
        opened = self._open.get(name)
        if opened is None:
            opening = _opening(policy, name)
            opened = self._open[name] = _Open(await self._stack.enter_async_context(opening))
        if opened.live is not None:
            opened.live.interrupted = None
        if opened.started is not None:
            await opened.started.ready()
            trajectory.tools[name] = dict(opened.started.details)
        if name in self._lacking:
            await self._run_again(policy, trajectory, name)
        return opened


class _Open:
    """A session, and what it can do: asking a protocol takes as long as a short call."""

    def __init__(self, session: ToolSession) -> None:
        self.session = session
        self.live = session if isinstance(session, LiveSession) else None
        self.started = session if isinstance(session, StartedSession) else None
        self.stateless = isinstance(session, StatelessSession) and session.stateless


@dataclass(slots=True)
class _Ran:
    """A call that was run, in the trajectory's turn of that number, and its text and error; None
    where it did not come to its end.
    """

    turn: int
    tool: str
    arguments: dict[str, Any]
    shown: tuple[str, ErrorKind | None] | None = None


def _opening(policy: Policy, name: str) -> AbstractAsyncContextManager[ToolSession]:
    """A new session of a tool; one that knows what can be spared in its results shortens them
    better than `truncate_middle`.
    """
    tool: Tool = policy.tools[name]
    if isinstance(tool, Budgeted):
        encode = policy.engine.tokenizer.encode
        tool = tool.within(policy.limits.max_tool_tokens, lambda text: len(encode(text)))
    return tool.session()
