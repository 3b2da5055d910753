"""The loop: one trajectory, from a question to its end.

    a question          -> PROMPT spans
    the engine samples  -> a POLICY span; the format reads it
      it calls tools    -> they run; TOOL spans, and a HOST span where a limit is near; again
      it answers, ends, or reaches a limit -> a stop reason

Every token goes into the ledger as it came. The person in a chat, an evaluation and a trainer all
go through this file.
"""

import asyncio
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Self

import numpy as np

from ..tools import ErrorKind, ToolResult, ToolSession
from ..tools.errors import InterlaceError
from .engines.base import EngineError, Request
from .events import CallFinished, CallStarted, Event, Finished, Listener, Notice, PolicyText
from .formats import Call, Parsed
from .history import History
from .ledger import Span
from .policy import Policy
from .tokenizer import TextStream, Tokenizer
from .trajectory import CallRecord, Finish, StopReason, Trajectory, Turn

__all__ = ["Rollout", "cut"]

# A tool has to keep its own deadline; this much later we stop waiting for it, so that one that
# hangs can't hang a run of many.
GRACE_SECONDS = 15.0


class ToolFailed(Exception):
    """A tool failed on our side: the trajectory ends, and the policy is not to blame."""


class Rollout:
    """One trajectory in the making. `ask` as often as there are questions; close it at the end.

    The ledgers, the tools' state and the engine's kept context live from question to question;
    limits count anew for each. `trajectory` is readable at any time: whatever ends a question, a
    cancel included, what happened until then stands in it.

    Example:
        async with Rollout(policy, name="a") as rollout:
            await rollout.ask("How many bolts are in 296 crates of 4387?")
            print(rollout.trajectory.answer)
    """

    def __init__(
        self,
        policy: Policy,
        *,
        name: str,
        seed: int | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.policy = policy
        self.name = name
        self.trajectory = Trajectory(policy=policy.engine.name, format=policy.format.name)
        self._seed = policy.sampling.seed if seed is None else seed
        self._listener = listener
        self._sessions: dict[str, ToolSession] = {}
        self._stack = AsyncExitStack()
        self._history = History(policy)
        # Of the question that is being answered:
        self._first_turn = 0  # its first turn, among the trajectory's
        self._first_token = 0  # where its response begins in the ledger
        self._calls_left = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the tools' sessions and let the engine forget the context."""
        await self._stack.aclose()
        await self.policy.engine.release(self.name)

    async def ask(self, question: str) -> Trajectory:
        """Run one question to its end; never raises for what the policy, a tool or the engine did.

        Sets the trajectory's `stop` and `answer`. Cancelling records what was sampled so far, sets
        `CANCELLED` and raises CancelledError on.
        """
        trajectory = self.trajectory
        trajectory.stop = trajectory.answer = None
        trajectory.details.pop("error", None)
        clock = asyncio.timeout(self.policy.limits.seconds)
        try:
            async with clock:
                self._open(question)
                trajectory.stop = await self._take_turns()
        except asyncio.CancelledError:
            trajectory.stop = StopReason.CANCELLED
            raise
        except TimeoutError as error:
            trajectory.stop = StopReason.TIMEOUT if clock.expired() else StopReason.INFRASTRUCTURE
            if not clock.expired():
                trajectory.details["error"] = f"TimeoutError: {error}"
        except Exception as error:  # boundary: a failure of ours ends this trajectory, not the run
            trajectory.stop = StopReason.INFRASTRUCTURE
            named = isinstance(error, InterlaceError | EngineError | ToolFailed)
            trajectory.details["error"] = (
                str(error) if named else f"{type(error).__name__}: {error}"
            )
        finally:
            self._history.remember(question, trajectory, self._first_turn)
            self._emit(Finished(trajectory.stop or StopReason.INFRASTRUCTURE, trajectory.answer))
        return trajectory

    def _open(self, question: str) -> None:
        trajectory = self.trajectory
        left_out = self._history.open(question, trajectory)
        if left_out:
            self._emit(Notice(f"the {left_out} oldest messages no longer fit the context"))
        self._first_turn = len(trajectory.turns)
        self._first_token = len(trajectory.ledger)
        self._calls_left = self.policy.limits.calls

    # -- one question ---------------------------------------------------------------------------

    async def _take_turns(self) -> StopReason:
        limits = self.policy.limits
        for turns_left in reversed(range(limits.turns)):
            turn, parsed = await self._take_turn()
            if not parsed.calls:
                self.trajectory.answer = parsed.answer
                if parsed.answer is not None:
                    return StopReason.ANSWERED
                return StopReason.LENGTH if turn.finish is Finish.LENGTH else StopReason.ENDED
            if not turns_left:
                for call in parsed.calls:
                    self._refuse(turn, call, "Not run: no turns are left.")
                return StopReason.TURNS
            started = time.perf_counter()
            for call in parsed.calls:
                await self._call(turn, call)
            turn.tool_seconds = time.perf_counter() - started
            self._answer_calls(turn, self._notice(turns_left))
        raise AssertionError("unreachable: Limits.turns is at least 1")

    async def _take_turn(self) -> tuple[Turn, Parsed]:
        """Let the policy speak until it has said something that can be read."""
        policy, ledger = self.policy, self.trajectory.ledger
        here = len(self.trajectory.ledgers) - 1
        turn = Turn(ledger=here, start=len(ledger), stop=len(ledger), finish=Finish.CANCELLED)
        self.trajectory.turns.append(turn)
        stream = policy.engine.tokenizer.stream()
        tools = tuple(policy.tools.values())
        while True:
            before = len(ledger)
            await self._sample(turn, stream)
            if turn.finish is Finish.STOP and len(ledger) == before:
                raise EngineError(f"{policy.engine.name} stopped without sampling a token")
            parsed = policy.format.parse(
                self.trajectory.text(turn, policy.engine.tokenizer), turn.finish, tools
            )
            turn.forged = parsed.forged
            # A stop string that closes nothing (it stands in a string of the code, say) is a false
            # alarm: the policy has not finished its turn.
            said = parsed.complete and (parsed.calls or parsed.answer is not None)
            if said or turn.finish is not Finish.STOP:
                return turn, parsed

    async def _sample(self, turn: Turn, stream: TextStream) -> None:
        """One request to the engine: its tokens into the ledger, its text to the listener."""
        policy, ledger = self.policy, self.trajectory.ledger
        budget = self._tokens_left()
        if budget <= 0:
            turn.finish = Finish.LENGTH
            return
        request = Request(
            ids=ledger.ids,
            max_tokens=budget,
            sampling=replace(policy.sampling, seed=self._turn_seed(len(ledger))),
            stop=policy.format.stop,
            context=self.name,
        )
        sampled = _Sampled()
        started = time.perf_counter()
        try:
            async with aclosing(policy.engine.generate(request)) as chunks:
                async for chunk in chunks:
                    sampled.ids += chunk.ids
                    sampled.logprobs += chunk.logprobs or ()
                    sampled.raw += chunk.raw_logprobs or ()
                    sampled.version = chunk.version
                    turn.prefilled += chunk.prefilled
                    turn.cached += chunk.cached
                    if self._listener is not None and chunk.ids:
                        eos = policy.engine.tokenizer.eos_ids
                        text = "".join(stream.push(id) for id in chunk.ids if id not in eos)
                        self._listener(PolicyText(text, len(chunk.ids)))
                    if chunk.finish is not None:
                        turn.finish = chunk.finish
        finally:  # a cancel or a failure keeps what was sampled
            turn.seconds += time.perf_counter() - started
            if sampled.ids:
                exact = len(sampled.logprobs) == len(sampled.ids)
                self.trajectory.exact &= exact
                ledger.append(sampled.span(exact))
                turn.stop = len(ledger)

    # -- tools ----------------------------------------------------------------------------------

    async def _call(self, turn: Turn, call: Call) -> None:
        if not self._calls_left:
            self._refuse(turn, call, "Not run: no tool calls are left. Give the final answer now.")
            return
        self._calls_left -= 1
        tool = self.policy.tools.get(call.tool)
        if call.problem is not None:
            result = ToolResult(call.problem, ErrorKind.ARGUMENTS)
        elif tool is None:
            names = ", ".join(self.policy.tools) or "none"
            text = f"There is no tool {call.tool!r}. Tools: {names}."
            result = ToolResult(text, ErrorKind.NOT_FOUND)
        else:
            self._emit(CallStarted(call.tool, call.arguments or {}))
            result = await self._run(call)
        self._record(turn, call, result)
        if result.error is ErrorKind.UNAVAILABLE:
            raise ToolFailed(result.text)

    async def _run(self, call: Call) -> ToolResult:
        """Run a call. What a tool raises is our failure: for the policy's it returns a result."""
        seconds = self.policy.limits.call_seconds
        try:
            async with asyncio.timeout(seconds + GRACE_SECONDS):
                session = self._sessions.get(call.tool)
                if session is None:
                    opening = self.policy.tools[call.tool].session()
                    session = await self._stack.enter_async_context(opening)
                    self._sessions[call.tool] = session
                return await session.call(call.arguments or {}, seconds)
        except Exception as error:  # boundary: around a tool
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            return ToolResult(f"the tool {call.tool!r} failed: {what}", ErrorKind.UNAVAILABLE)

    def _refuse(self, turn: Turn, call: Call, why: str) -> None:
        self._record(turn, call, ToolResult(why, ErrorKind.REFUSED))

    def _record(self, turn: Turn, call: Call, result: ToolResult) -> None:
        tokenizer = self.policy.engine.tokenizer
        harmless = tokenizer.harmless(result.text, self.policy.format.control_tags)
        output = cut(harmless, self._output_budget(), tokenizer)
        record = CallRecord(
            tool=call.tool,
            arguments=call.arguments,
            output=output,
            error=result.error,
            seconds=result.seconds,
            state_lost=result.state_lost,
            full_output=None if output == result.text else result.text,
            artifacts=list(result.artifacts),
            details=dict(result.details),
        )
        turn.calls.append(record)
        self._emit(CallFinished(record))

    def _answer_calls(self, turn: Turn, notice: str) -> None:
        ended = self.trajectory.ended(self.policy.engine.tokenizer)
        for span in self.policy.encoder.results(turn.calls, ended=ended, notice=notice):
            self.trajectory.ledger.append(span)
        if notice:
            self._emit(Notice(notice))

    # -- limits ---------------------------------------------------------------------------------

    def _tokens_left(self) -> int:
        """Tokens that this question's response, and the model's context, still have room for."""
        used = len(self.trajectory.ledger) - self._first_token
        room = self.policy.engine.context_length - len(self.trajectory.ledger)
        return min(self.policy.limits.response_tokens - used, room)

    def _output_budget(self) -> int:
        """Tokens for one call's output, such that the policy still has room to answer."""
        limits = self.policy.limits
        reserve = min(256, limits.response_tokens // 4)
        return max(0, min(limits.tool_output_tokens, self._tokens_left() - reserve))

    def _notice(self, turns_left: int) -> str:
        """What the policy is told of its limits, once one of them comes near."""
        limits = self.policy.limits
        parts = []
        if turns_left == 1:
            parts.append("last turn: give the final answer now")
        elif not self._calls_left:
            parts.append("no tool calls left: give the final answer now")
        elif self._calls_left == 1:
            parts.append("1 tool call left")
        if self._tokens_left() < limits.response_tokens // 8:
            parts.append(f"{max(0, self._tokens_left())} tokens left")
        return "; ".join(parts)

    def _turn_seed(self, position: int) -> int | None:
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, position]).generate_state(1)[0])

    def _emit(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)


class _Sampled:
    """The tokens of one request, until they become a span."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.raw: list[float] = []
        self.version = 0

    def span(self, exact: bool) -> Span:
        if not exact:  # ids that were not sampled as such can't be trained on
            return Span.policy(self.ids, version=self.version, weight=0.0)
        raw = self.raw if len(self.raw) == len(self.ids) and self.raw != self.logprobs else None
        return Span.policy(self.ids, logprobs=self.logprobs, raw_logprobs=raw, version=self.version)


def cut(text: str, limit: int, tokenizer: Tokenizer) -> str:
    """Text of at most about `limit` tokens: the head and the tail of a longer one, and a note.

    The note between them says how much was left out.
    """
    ids = tokenizer.encode(text)
    if len(ids) <= limit:
        return text
    if limit < 16:
        return f"[output of {len(ids)} tokens left out: no room]"
    head, tail = limit - limit // 3, limit // 3
    note = f"\n[... {len(ids) - limit} tokens left out ...]\n"
    return tokenizer.decode(ids[:head]) + note + tokenizer.decode(ids[-tail:])
