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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Self, TypeAlias

import numpy as np

from ..tools import ErrorKind, ToolResult
from ..tools.background import in_thread
from ..tools.base import encodable
from .admission import Phase, SamplingGate
from .budget import Budget, BudgetSpent
from .clock import Clock
from .engines.base import EngineError, Request
from .events import (
    CallFinished,
    CallOutput,
    CallStarted,
    Event,
    Finished,
    Listener,
    Notice,
    PolicyText,
)
from .formats import Call, Parsed
from .history import History
from .ledger import Source, Span
from .policy import Policy
from .sampled import SampledTokens
from .sessions import Sessions, ToolFailed, describe_error
from .tokenizer import TextStream, shown_output
from .trajectory import (
    Branch,
    CallRecord,
    FinishReason,
    StopReason,
    Trajectory,
    Turn,
    as_shared,
)

__all__ = ["CallGate", "Rollout", "Until"]

CallGate: TypeAlias = Callable[[Call], Awaitable[ToolResult | None]]
"""Asked before a call is run: None lets it run, a result replaces it (a refusal, say)."""

_STREAM_INTERVAL = 16
"""Tokens that may come in one chunk where no listener is attached. It bounds how long the gate
waits for an engine when it shuts, and how many tokens a cancel may lose."""
_FALSE_ALARMS = 64
"""Stops of one turn that close nothing; then it is sampled to its end."""
_SHORT_TEXT = 20_000
"""Characters of a turn that are read at once; more are read in a thread, so that no other
trajectory waits."""


class _Sampled(Enum):
    """How a request to the engine ended, for the turn that it belongs to."""

    WHOLE = "whole"
    """The engine ended it: `turn.finish` says how."""
    PAUSED = "paused"
    """We broke it off, since the gate was shut: the turn continues once it is open."""
    SHORT = "short"
    """It had fewer tokens than were wanted, since others held the rest of a shared budget: the turn
    continues with what they give back."""


class Until(Enum):
    """How far a rollout continues; it may always end before."""

    END = "end"
    """To the end of the question."""
    SAID = "said"
    """Until the policy has spoken once more; the calls it made are not run yet."""
    RESULTS = "results"
    """Until the results of its next calls are in the ledger."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A place where the policy was about to speak: after the question, or after results."""

    turns: int
    ledger: int
    tokens: int
    turns_left: int
    calls_left: int
    overcounted: int
    seconds: float


class Rollout:
    """One trajectory in the making. `ask` as often as there are questions; close it at the end.

    The ledgers, the tools' state and the engine's kept context live from question to question;
    limits apply to each separately. `trajectory` is readable at any time: whatever ends a question,
    even a cancellation, it holds everything that happened until then.

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
        sampling_gate: SamplingGate | None = None,
        budget: Budget | None = None,
        call_gate: CallGate | None = None,
    ) -> None:
        self.policy = policy
        self.name = name
        self.trajectory = Trajectory(model=policy.engine.name, format=policy.format.name)
        self._seed = policy.sampling.seed if seed is None else seed
        self.listener = listener
        self._sampling_gate = sampling_gate or SamplingGate()
        self._metrics = self._sampling_gate.metrics
        self._budget = budget or Budget()
        self._call_gate = call_gate
        self.stop_after_turn = False  # once set: the question ends, CANCELLED, with its turn
        self._sessions = Sessions(self._sampling_gate)
        self.history = History(policy)
        # Of the question that is being answered:
        self._question = ""
        self._places: list[_Place] = []  # where it was the policy's turn; empty until it is open
        self._said: tuple[Turn, Parsed] | None = None  # its calls are not run yet
        self._begun: Turn | None = None  # a turn that continues another one's
        self._first_turn = 0  # its first turn, among the trajectory's
        self._first_token = 0  # where its response begins in the ledger
        self._turns_left = self._calls_left = 0
        self._unread = 0  # tokens of results that are not in the ledger yet
        self._overcounted = 0  # ids in the ledger beyond the tokens that a server counted
        self._clock: Clock
        self._seconds = 0.0  # left of its limit, between two calls of `go_on`

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the tools' sessions and let the engine forget the context."""
        try:
            await self._sessions.aclose()
        finally:
            await self.policy.engine.release(self.name)

    async def close_tools(self) -> None:
        """Close the tools' sessions: no question comes, though a fork may."""
        await self._sessions.aclose()

    async def ask(self, question: str) -> Trajectory:
        """Run one question to its end; never raises for what the policy, a tool or the engine did.

        Sets the trajectory's `stop` and `answer`. Cancelling records what was sampled so far, sets
        `CANCELLED` and raises CancelledError on.
        """
        self.begin(question)
        return await self.go_on()

    def begin(self, question: str) -> None:
        """Ask a question, which `go_on` answers."""
        trajectory = self.trajectory
        trajectory.stop = trajectory.answer = trajectory.error = None
        self._question = question
        self._places, self._said, self._begun = [], None, None
        self._first_turn = len(trajectory.turns)
        self._seconds = self.policy.limits.timeout
        self.stop_after_turn = False

    async def go_on(self, until: Until = Until.END) -> Trajectory:
        """Continue to answer the open question, to its end or `until` a place before it.

        The trajectory's `stop` is None as long as the question is open; between two calls of this
        its clock stands still. A question that has ended stays as it is. Otherwise as `ask`.
        """
        trajectory = self.trajectory
        if trajectory.stop is not None:
            return trajectory
        self._clock = clock = Clock(self._seconds, self._budget)
        paused = False
        try:
            async with clock:
                with self._budget.answering():
                    if not self._places:
                        self._open(self._question)
                    trajectory.stop = await self._take_turns(until)
                    paused = trajectory.stop is None
        except asyncio.CancelledError:
            trajectory.stop = StopReason.CANCELLED
            raise
        except TimeoutError as error:
            late = StopReason.BUDGET if self._budget.out_of_time else StopReason.TIMEOUT
            ours = clock.overdue or not clock.expired
            trajectory.stop = StopReason.INFRASTRUCTURE if ours else late
            if ours:
                trajectory.error = clock.overdue or f"TimeoutError: {error}"
        except BudgetSpent:
            trajectory.stop = StopReason.BUDGET
        except Exception as error:  # boundary: a failure of ours ends this trajectory, not the run
            trajectory.stop = StopReason.INFRASTRUCTURE
            trajectory.error = describe_error(error)
        finally:
            self._seconds = clock.left
            if not paused:
                if trajectory.stop is not StopReason.INFRASTRUCTURE:
                    self.history.remember(self._question, trajectory, self._first_turn)
                stop = trajectory.stop or StopReason.INFRASTRUCTURE
                self._emit(Finished(stop, trajectory.answer))
        return trajectory

    def _open(self, question: str) -> None:
        trajectory = self.trajectory
        left_out = self.history.open(question, trajectory)
        if left_out:
            self._emit(Notice(f"the {left_out} oldest messages no longer fit the context"))
        self._first_token = len(trajectory.ledger)
        self._unread = self._overcounted = 0
        self._turns_left = self.policy.limits.max_turns
        self._calls_left = min(self.policy.limits.max_calls, self._budget.calls_left)
        self._mark_place()

    def _mark_place(self) -> None:
        trajectory = self.trajectory
        self._places.append(
            _Place(
                len(trajectory.turns),
                len(trajectory.ledgers) - 1,
                len(trajectory.ledger),
                self._turns_left,
                self._calls_left,
                self._overcounted,
                self._clock.left,
            )
        )

    # -- branches -------------------------------------------------------------------------------

    @property
    def places(self) -> range:
        """Numbers of turns of the open question after which `fork` can continue: from 0, after
        the question, or from where it left another one.
        """
        first = self._places[0].turns if self._places else 0
        return range(first, first + len(self._places))

    async def fork(
        self,
        branch: str,
        *,
        seed: int | None = None,
        turns: int | None = None,
        tokens: int = 0,
        words: str = "",
    ) -> "Rollout":
        """A rollout of the same question that shares the beginning with this one, and has not
        continued yet.

        It shares as many `turns` as said, with their results, or all of them; then the first
        `tokens` that the policy wrote of the next turn; and `words` follow them as the
        host's. What it says next completes that turn, which is read with the words: they may open a
        call for the policy. Words of others, a peer's say, have to be made harmless before
        (`Tokenizer.escape_control_tokens`). The limits that were left there hold for it, and its
        tools are in the state that they had there (`Sessions.fork`).

        `branch` is its name in the tree. With a `seed` it samples the same in every run: take one
        of its own, since with this one's it says the same again. It may outlive this one, and is to
        be closed as well. Raises ValueError for a place that does not exist, and for words that
        hold an answer.
        """
        if turns is None:
            turns = self.places[-1] if self._places else 0
        if turns not in self.places:
            raise ValueError(f"no place after {turns} turns: there are {self.places}")
        place = self._places[turns - self.places[0]]
        given = self.policy.engine.tokenizer.encode_continuation(words)
        begun = None
        cut = place.tokens
        if tokens or given:
            begun, cut = self._cut(place, tokens, given)
        child = copy(self)
        own = self.trajectory
        if own.branch is None:
            own.branch = Branch("0")
        left = own.branch
        # Up to where this one left another, all is the other's: the branch leaves that one.
        ours = left.parent is None or (place.ledger, cut) > (left.ledger, left.tokens)
        child.trajectory = trajectory = Trajectory(
            own.model,
            own.format,
            [ledger.fork() for ledger in own.ledgers[: place.ledger]],
            [as_shared(turn) for turn in own.turns[:turns]],
            token_exact=own.token_exact,
            tools={name: dict(details) for name, details in own.tools.items()},
            branch=Branch(branch, left.name if ours else left.parent, turns, cut, place.ledger),
        )
        trajectory.ledgers.append(own.ledgers[place.ledger].head(cut))
        if begun is not None:
            trajectory.turns.append(begun)
            if given:
                trajectory.ledger.append(Span.given(Source.HOST, given))
        child.name = f"{self.name}:{branch}"
        child.history = self.history.fork()
        child._seed = seed
        child._seconds = place.seconds
        child._places, child._said, child._begun = [place], None, begun
        child._turns_left, child._calls_left = place.turns_left, place.calls_left
        child._overcounted, child._unread = place.overcounted, 0
        child.stop_after_turn = False
        child._sessions = await self._sessions.fork(self.policy, turns)
        return child

    def _cut(self, place: _Place, tokens: int, given: list[int]) -> tuple[Turn, int]:
        """A turn with the first tokens of the one after a place and the host's words."""
        trajectory, policy = self.trajectory, self.policy
        start = place.tokens
        if tokens:
            turns = trajectory.turns[place.turns : place.turns + 1]
            most = turns[0].stop - turns[0].start if turns else 0
            if not 0 < tokens <= most:
                raise ValueError(f"the turn has {most} tokens: there is no place after {tokens}")
        cut = start + tokens
        host = sum(
            source is Source.HOST for source in trajectory.ledgers[place.ledger].sources[start:cut]
        )
        turn = Turn(place.ledger, start, cut + len(given), FinishReason.CANCELLED)
        turn.given = host + len(given)
        tools = tuple(policy.tools.values())
        tokenizer = policy.engine.tokenizer
        before = trajectory.ledgers[place.ledger].ids[start:cut].tolist()
        answers = [
            policy.format.parse(tokenizer.decode(ids), FinishReason.STOP, tools).answer
            for ids in (before, before + given)
        ]
        if answers[0] != answers[1] and policy.format.stop:
            raise ValueError("the words hold an answer, which only the policy may give")
        return turn, cut

    # -- one question ---------------------------------------------------------------------------

    async def _take_turns(self, until: Until = Until.END) -> StopReason | None:
        while True:
            if self._said is None:
                self._said = await self._take_turn()
                self._turns_left -= 1
                if self._said[1].calls and self._turns_left and until is Until.SAID:
                    return None
            (turn, parsed), self._said = self._said, None
            if not parsed.calls:
                self.trajectory.answer = parsed.answer
                if parsed.answer is not None:
                    return StopReason.ANSWERED
                return StopReason.LENGTH if turn.finish is FinishReason.LENGTH else StopReason.ENDED
            if not self._turns_left:
                for call in parsed.calls:
                    self._refuse(turn, call, "Not run: no turns are left.")
                self._answer_calls(turn, None)
                return StopReason.TURNS
            await self._run_calls(turn, parsed.calls, self._turns_left)
            self._mark_place()
            if self.stop_after_turn:
                return StopReason.CANCELLED
            if until is Until.RESULTS:
                return None

    async def _take_turn(self) -> tuple[Turn, Parsed]:
        """Let the policy speak until it has said something that can be read."""
        policy, ledger = self.policy, self.trajectory.ledger
        turn, self._begun = self._begun, None
        if turn is None:
            here, now = len(self.trajectory.ledgers) - 1, len(ledger)
            turn = Turn(ledger=here, start=now, stop=now, finish=FinishReason.CANCELLED)
            self.trajectory.turns.append(turn)
        stream = policy.engine.tokenizer.stream()
        tools = tuple(policy.tools.values())
        stops = policy.format.stop
        false_alarms = 0
        while True:
            before = len(ledger)
            if await self._sample(turn, stream, stops) is not _Sampled.WHOLE:
                continue
            if turn.finish is FinishReason.CANCELLED:
                raise EngineError(f"{policy.engine.name} broke off in the middle of a turn")
            if turn.finish is FinishReason.STOP and len(ledger) == before:
                raise EngineError(f"{policy.engine.name} stopped without sampling a token")
            if turn.finish is FinishReason.FILTERED:
                return turn, Parsed()
            text = self.trajectory.text(turn, policy.engine.tokenizer)
            parse = partial(policy.format.parse, text, turn.finish, tools)
            parsed = parse() if len(text) <= _SHORT_TEXT else await asyncio.to_thread(parse)
            turn.forged = parsed.forged
            # A stop string that closes nothing (it is part of a string in the code, say) is a false
            # alarm: the policy has not finished its turn. Each is one more request and reads all of
            # the turn again, so one that does nothing else is heard out.
            said = parsed.complete and (parsed.calls or parsed.answer is not None)
            if said or turn.finish is not FinishReason.STOP:
                return turn, parsed
            false_alarms += 1
            if false_alarms == _FALSE_ALARMS:
                stops = ()

    async def _sample(self, turn: Turn, stream: TextStream, stops: tuple[str, ...]) -> _Sampled:
        """One request to the engine: its tokens into the ledger, its text to the listener.

        Four things may make it wait or cut it short. The budget grants fewer tokens than the turn
        may have; the gate is shut, before the request or in the middle of it; the clock is paused
        until the engine's first token; and the caller may cancel.
        """
        policy, ledger = self.policy, self.trajectory.ledger
        tokenizer = policy.engine.tokenizer
        wanted = self._tokens_left()
        if wanted <= 0:
            turn.finish = FinishReason.LENGTH
            return _Sampled.WHOLE
        granted = await self._budget.reserve(wanted)
        seed = self._seed
        if seed is not None:  # another one for each request: the same draws would repeat a turn
            seed = int(np.random.SeedSequence([seed, len(ledger)]).generate_state(1)[0])
        request = Request(
            ids=ledger.ids,
            max_tokens=granted,
            sampling=replace(policy.sampling, seed=seed),
            stop=stops,
            context=self.name,
            stream_interval=1 if self.listener is not None else _STREAM_INTERVAL,
            conversation=partial(self.history.conversation, self.trajectory),
        )
        sampled = SampledTokens()
        started, paused = time.perf_counter(), False
        try:
            generating = aclosing(policy.engine.generate(request))
            async with self._sampling_gate.pass_through(self._clock), generating as chunks:
                started = time.perf_counter()
                self._queue()
                async for chunk in chunks:
                    if chunk.ids or chunk.finish is not None:
                        self._clock.go_on()
                    else:
                        self._queue()
                    sampled.add(chunk)
                    turn.prefilled += chunk.prefilled
                    turn.cached += chunk.cached
                    turn.overshoot += chunk.overshoot
                    self._metrics.tokens += len(chunk.ids)
                    if self.listener is not None and chunk.ids:
                        eos = tokenizer.eos_ids
                        text = "".join(stream.push(id) for id in chunk.ids if id not in eos)
                        self.listener(PolicyText(text, len(chunk.ids)))
                    if chunk.finish is not None:
                        turn.finish = chunk.finish
                    elif self._sampling_gate.held and sampled.can_pause(tokenizer, stops):
                        paused = True
                        break
        finally:  # a cancel or a failure keeps what was sampled
            self._clock.go_on()
            turn.seconds += time.perf_counter() - started
            counted = sampled.counted
            self._budget.release(granted, len(sampled.ids) if counted is None else counted)
            if sampled.ids:
                self.trajectory.token_exact &= sampled.exact
                ledger.append(sampled.span())
                turn.stop = len(ledger)
            if counted is not None:
                turn.counted = (turn.counted or 0) + counted
                self._overcounted += len(sampled.ids) - counted
                turn.estimated |= sampled.estimated
        if paused:
            return _Sampled.PAUSED
        short = turn.finish is FinishReason.LENGTH and granted < wanted
        return _Sampled.SHORT if short else _Sampled.WHOLE

    def _queue(self) -> None:
        """Wait for the engine: until its first token comes, the time is not the policy's."""
        patience = self._sampling_gate.patience
        name = self.policy.engine.name
        self._clock.stop(patience, f"{name} did not begin to sample within {patience:g} s")

    # -- tools ----------------------------------------------------------------------------------

    async def _run_calls(self, turn: Turn, calls: Sequence[Call], turns_left: int) -> None:
        """Run a turn's calls in order. Whatever stops them, each gets a record, and the ledger the
        results: a later question never follows a call that was left open.
        """
        started = time.perf_counter()
        goes_on = None
        try:
            with self._metrics.during(Phase.CALLING):
                for call in calls:
                    await self._call(turn, call)
            goes_on = turns_left
        finally:
            for call in calls[len(turn.calls) :]:
                self._refuse(turn, call, "Not run: the answer was stopped.")
            turn.tool_seconds = time.perf_counter() - started
            self._answer_calls(turn, goes_on)

    async def _call(self, turn: Turn, call: Call) -> None:
        if not (self._calls_left and self._budget.take_call()):
            self._calls_left = 0
            self._refuse(turn, call, "Not run: no tool calls are left. Give the final answer now.")
            return
        self._calls_left -= 1
        tool = self.policy.tools.get(call.tool)
        if call.problem is not None:
            result = ToolResult(call.problem, ErrorKind.SYNTAX)
        elif tool is None:
            names = ", ".join(self.policy.tools) or "none"
            text = f"There is no tool {call.tool!r}. Tools: {names}."
            result = ToolResult(text, ErrorKind.NOT_FOUND)
        elif (given := await self._ask_call_gate(call)) is not None:
            result = given
        else:
            self._emit(CallStarted(call.tool, call.arguments or {}))
            result = await self._run(turn, call)
        await self._record_in_thread(turn, call, result)
        if result.error is ErrorKind.UNAVAILABLE:
            raise ToolFailed(result.text)

    async def _ask_call_gate(self, call: Call) -> ToolResult | None:
        """The gate's result in place of running a call, if any; the question's clock is paused."""
        if self._call_gate is None:
            return None
        with self._clock.stopped():
            return await self._call_gate(call)

    async def _run(self, turn: Turn, call: Call) -> ToolResult:
        """Run a call; one that is stopped before its end leaves what it had shown on record."""
        hear = None if self.listener is None else partial(self._hear, call.tool)
        try:
            return await self._sessions.call(self.policy, self.trajectory, call, hear, self._clock)
        except asyncio.CancelledError:
            self._record(turn, call, self._sessions.interrupted(call.tool))
            raise

    def _hear(self, tool: str, text: str) -> None:
        # Soon: what a listener raises is not the tool's failure.
        asyncio.get_running_loop().call_soon(self._emit, CallOutput(tool, encodable(text)))

    def _refuse(self, turn: Turn, call: Call, why: str) -> None:
        self._record(turn, call, ToolResult(why, ErrorKind.REFUSED))

    async def _record_in_thread(self, turn: Turn, call: Call, result: ToolResult) -> None:
        """As `_record`; a long text is encoded beside the event loop."""
        output = None
        try:
            if len(result.text) > _SHORT_TEXT:
                output = await in_thread(self._shown, result.text)
        finally:  # the call was run, whatever happens here
            self._record(turn, call, result, output)

    def _record(
        self, turn: Turn, call: Call, result: ToolResult, output: str | None = None
    ) -> None:
        record = CallRecord.of(call.tool, call.arguments, result, "")
        if call.id:
            record.details["id"] = call.id
        turn.calls.append(record)  # it is on record before anything else is done with it
        record.output = self._shown(result.text) if output is None else output
        record.full_output = None if record.output == result.text else result.text
        tokens = self.policy.engine.tokenizer.encode(record.output)
        self._unread += len(tokens) + self.policy.encoder.result_overhead
        self._emit(CallFinished(record))

    def _shown(self, text: str) -> str:
        tokenizer, tags = self.policy.engine.tokenizer, self.policy.format.control_tags
        return shown_output(text, self._output_budget(), tokenizer, tags)

    def _answer_calls(self, turn: Turn, turns_left: int | None) -> None:
        """Write the results and, if the policy may continue and a limit is near, a notice."""
        ended = self.trajectory.ended(self.policy.engine.tokenizer)
        results = partial(self.policy.encoder.results, turn.calls, ended=ended)
        self._unread = 0
        near = notice = "" if turns_left is None else self._near(turns_left)
        spans = results(notice=notice)
        enough, left = self.policy.limits.max_tokens // 8, self._budget.tokens_left
        # The notice itself uses tokens, so recompute until the number that it states is true.
        for _ in range(4):
            left = min(left, max(0, self._tokens_left() - sum(map(len, spans))))
            if turns_left is None or left >= enough:
                break
            enough, notice = left, "; ".join(filter(None, [near, f"{left} tokens left"]))
            spans = results(notice=notice)
        for span in spans:
            self.trajectory.ledger.append(span)
        if notice:
            self._emit(Notice(notice))

    # -- limits ---------------------------------------------------------------------------------

    def _tokens_left(self) -> int:
        """Tokens that this question's response, and the model's context, still have room for.

        An engine of text (`exact` is False) counts its context itself: ids of ours say little of
        it.
        """
        length = len(self.trajectory.ledger) + self._unread
        left = self.policy.limits.max_tokens - (length - self._first_token - self._overcounted)
        engine = self.policy.engine
        return min(left, engine.context_length - length) if getattr(engine, "exact", True) else left

    def _output_budget(self) -> int:
        """Tokens for one call's output, such that the policy still has room to answer."""
        limits = self.policy.limits
        reserve = min(256, limits.max_tokens // 8) + self.policy.encoder.result_overhead
        return max(0, min(limits.max_tool_tokens, self._tokens_left() - reserve))

    def _near(self, turns_left: int) -> str:
        """The notice to the policy that turns or calls are running out, or ""."""
        if turns_left == 1:
            return "last turn: give the final answer now"
        if not self._calls_left:
            return "no tool calls left: give the final answer now"
        return "1 tool call left" if self._calls_left == 1 else ""

    def _emit(self, event: Event) -> None:
        if self.listener is not None:
            self.listener(event)
