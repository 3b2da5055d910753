"""A chat's state: who answers, the conversation and where it is kept, what is shown."""

import asyncio
import signal
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from ....rollout.budget import Budget
from ....rollout.formats import FORMATS
from ....rollout.formats.plain import PlainText
from ....rollout.models.load import refuse_engine
from ....rollout.trajectory import Episode, StopReason
from ....tools.errors import DataError, UsageError
from ....tools.importing import names, refuse_code
from ....tools.named import TOOLS
from ...agent import Agent
from ...approval import Approval
from ...conversation import Conversation
from ...conversations import Conversations, default_file
from ...events import ApprovalAsked
from ...result import Result
from ...run import AgentRun
from ...team.runs import Runs, SavedRun
from ...team.team import Team
from ..answering import exit_code, load, make_agent, warnings
from ..approvals import ask_person, left_line, read_approval, read_budget
from ..commands.chat import KeepOptions
from ..exits import Exit, print_json
from ..options import GuardOptions, LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.live_view import LiveView, usage_line, why_no_answer
from ..render.terminal import make_console, printable
from ..settings import settings
from ..teams import find_unfinished, make_team, recorded_options

__all__ = ["ChatSession"]

_AGAIN = 2.0
"""Seconds within which a second Ctrl-C leaves."""


class ChatSession:
    """A conversation on the terminal, or through pipes. `example` is the text of the first prompt;
    with `team.team` a CEO and its experts answer, each question on its own.
    """

    def __init__(
        self,
        model: ModelOptions,
        limits: LimitOptions,
        guard: GuardOptions,
        output: OutputOptions,
        *,
        team: TeamOptions | None = None,
        example: str = "",
    ) -> None:
        """Raises UsageError, and ModelError for a model that is not there."""
        self.interactive = sys.stdin.isatty() and sys.stderr.isatty()
        self.conversation: Conversation | None = None
        self.approval: Approval = read_approval(guard) or Approval("allow")
        self._model, self._limits, self._output = model, limits, output
        self._budget: Budget = read_budget(guard)
        self._team = team or TeamOptions()
        self.example = example
        self._store: Conversations | None = None
        self._runs: Runs | None = None
        self._unfinished: SavedRun | None = None
        self._resume: str | None = None
        self._console = make_console(sys.stderr)
        # On a terminal the answer is seen where it is written; it is not repeated on stdout.
        self._seen = self.interactive and sys.stdout.isatty() and not (output.quiet or output.json)
        self._stack = AsyncExitStack()
        # What was answered, in order: a team's episode, None for a question of the conversation.
        self._answers: list[Episode | None] = []
        self.code = Exit.DONE
        """That of the first question that failed."""
        self.leaving = False
        """True once Ctrl-C was pressed twice."""
        self._warned: list[str] = []
        self._interrupted = -_AGAIN  # when Ctrl-C was pressed, seconds
        self.agent: Agent = self._make_agent()
        self._screen = LiveView(self._console, format=self.agent.format)

    def keep(self, options: KeepOptions, id: str | None) -> None:
        """Open the stores, if conversations are kept; a resumed one brings its model and its team.

        Raises DataError and UsageError.
        """
        wanted = self.interactive if options.keep is None else options.keep
        if not (wanted or options.resume):
            return
        try:
            if self.alone:
                self._runs = Runs(default_file().with_name("teams.db"))
            else:
                self._store = Conversations()
        except DataError as error:
            if options.resume or options.keep:
                raise
            self.say(f"[not kept: {error}]", "notice")
            return
        named = self._model  # on the command line and in settings, which may name code
        if self._runs is not None and options.resume:
            self._unfinished = find_unfinished(self._runs, id)
            self._team, model, format = recorded_options(self._unfinished)
            self._refuse_other(model)
            self._model = replace(self._model, model=model, format=format)
        elif self._store is not None and options.resume:
            self._resume = self._store.find(id)
            saved = self._store.load(self._resume)
            made = saved.episode.trajectory
            self._refuse_other(made.model)
            tools = list(saved.tools) or ["none"]
            tags = None if made.format == PlainText.name else made.format
            self._model = replace(self._model, model=made.model, format=tags, tool=tools)
        if options.resume:
            resumed = self._model
            if named.format is not None and resumed.format not in (None, *names("format", FORMATS)):
                self._model = replace(resumed, format=named.format)  # a format's name loads no code
            else:
                refuse_code("format", resumed.format, FORMATS, "what is resumed")
            again = set(resumed.tool or ()) - set(named.tool or ())
            refuse_code("tool", sorted(again), TOOLS, "what is resumed")
            if resumed.model != named.model:
                refuse_engine(resumed.model, "what is resumed")
        self.agent = self._make_agent()

    def _refuse_other(self, model: str) -> None:
        if self._model.model not in (settings("chat")["model"].value, model):
            raise UsageError(
                f"the resumed conversation is with {model}: leave out --model, and once it is "
                f"resumed, switch with /model {self._model.model}"
            )

    def _make_agent(self) -> Agent:
        terms: dict[str, Any] = {"approve": self.approval, "budget": self._budget}
        terms["conversations"] = self._store
        return make_agent(self._model, self._limits, temperature=0.0, **terms)

    def say(self, text: str, kind: str = "words") -> None:
        """A line on the screen."""
        self._screen.say(text, kind)

    async def load(self) -> None:
        """Load the model, start the tools, and print the warnings about them."""
        await load(self.agent, self._console, quiet=self._output.quiet)
        self._warn()

    async def greet(self) -> None:
        """Start the tools, and show who answers and how far the conversation is."""
        await self.agent.start_tools()
        if not self._output.quiet:
            who = f"a team of {self.agent.model}" if self._team.team else self.agent.model
            self.say(f"interlace chat with {who}; /help, Ctrl-D leaves", "dim")
        self._warn()
        if self._resume is not None:
            await self._tell_resumed()

    async def answer(self, question: str, *, team: bool = False) -> None:
        """Answer one question; on a terminal, Ctrl-C stops the answer alone. A `team` of such
        agents answers outside of the conversation.
        """
        await load(self.agent, self._console, quiet=self._output.quiet)
        if team or self.alone:
            await self._by_team(question)
        else:
            conversation = await self._open()
            try:
                await self._hear(conversation, conversation.stream(question))
            except DataError as error:
                if not self.interactive:
                    raise
                self.say(f"[not kept: {error}]", "notice")
            self._answers.append(None)

    async def go_on(self) -> None:
        """Resume the question that a team did not finish, if asked to."""
        if self._unfinished is None:
            return
        saved, self._unfinished = self._unfinished, None
        await load(self.agent, self._console, quiet=self._output.quiet)
        if not self._output.quiet:
            self.say("[resumed: the steps that were finished are not made again]", "notice")
            self.say(f"> {saved.question}", "dim")
        await self._by_team(saved.question, saved.id)

    async def _by_team(self, question: str, unfinished: str | None = None) -> None:
        team = make_team(self.agent, self._team, self._runs)
        run = team.stream(question) if unfinished is None else team.resume(unfinished)
        await self._hear(team, run)
        if team.last is None:
            return
        self._answers.append(team.last.episode)
        if self._runs is not None and not self._runs.load(team.last.episode.id).resumable:
            await team.forget(team.last.episode.id)  # it is kept to be resumed

    async def _hear(self, who: Team | Conversation, run: AgentRun) -> None:
        """Show the events of an answer, then how it ended."""
        task = asyncio.create_task(self._stream(run))
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.interrupt()
            task.cancel()

        if self.interactive:
            loop.add_signal_handler(signal.SIGINT, stop)
        try:
            await task
        except asyncio.CancelledError:
            ours = asyncio.current_task()
            if ours is not None and ours.cancelling():  # the whole program is to stop
                raise
        finally:
            if self.interactive:
                loop.remove_signal_handler(signal.SIGINT)
            if who.last is not None:
                self._report(who.last, seen=self._seen and who is self.conversation)

    def interrupt(self) -> bool:
        """Handle Ctrl-C. Return True on the second press within two seconds: it exits the chat."""
        now = time.monotonic()
        self.leaving = self.leaving or now - self._interrupted < _AGAIN
        self._interrupted = now
        return self.leaving

    @property
    def alone(self) -> bool:
        """True if each question is answered on its own, by a team."""
        return self._team.team

    @property
    def episodes(self) -> list[Episode]:
        """The episodes to save: the conversation, and each answer of a team."""
        conversation = [] if self.conversation is None else [self.conversation.episode]
        said = [*(one for one in conversation if one.started), *filter(None, self._answers)]
        return [episode for episode in said if episode.trajectories]

    def undo(self) -> tuple[str, bool] | None:
        """Take back the last question; return it, and True if a team had answered it."""
        last = self._answers.pop() if self._answers else None
        if last is not None:
            return last.task.question, True
        gone = self.conversation.undo() if self.conversation is not None else None
        return None if gone is None else (gone, False)

    async def forget(self) -> None:
        """End the conversation: the next question begins another."""
        self._answers.clear()
        await self._leave()

    async def _leave(self) -> None:
        self.conversation = None
        self._resume = None
        await self._stack.aclose()

    async def aclose(self) -> None:
        """End the conversation, the tools and the model."""
        await self.forget()
        await self.agent.aclose()

    async def change_model(self, name: str) -> None:
        """Switch to another model, which reads the conversation so far. Raises as loading does."""
        before, old, model = self.conversation, self.agent, self._model
        self._model = replace(model, model=name, format=None)
        try:
            # Fetching may take long, and must not stop the loop.
            self.agent = await asyncio.to_thread(self._make_agent)
            await load(self.agent, self._console, quiet=self._output.quiet)
        except BaseException:
            self.agent, self._model = old, model
            raise
        await self._leave()
        await old.aclose()
        if self.alone:
            return
        self._answers = [one for one in self._answers if one is not None]
        opening = self.agent.conversation(after=before)
        self.conversation = await self._stack.enter_async_context(opening)

    async def _open(self) -> Conversation:
        if self.conversation is None:
            opening = self.agent.conversation(resume=self._resume)
            self.conversation = await self._stack.enter_async_context(opening)
        return self.conversation

    async def _tell_resumed(self) -> None:
        """Show the last questions and answers of a resumed conversation."""
        conversation = await self._open()
        questions = conversation.questions
        self.say(f"[resumed: {len(questions)} questions; the tools begin anew]", "notice")
        for one in questions[-3:]:
            answer = one.answer if one.answer is not None else f"({one.stop})"
            self.say(f"> {one.question}", "dim")
            self.say(answer, "answer")

    def _warn(self) -> None:
        # The first chat, which has an example, reads no settings.
        self._warned = list(warnings(self.agent, settings_file=not self.example))
        if not self._output.quiet:
            for warning in self._warned:
                self.say(warning, "notice")

    async def _stream(self, run: AgentRun) -> None:
        async with run:
            async for event in run:
                asked = isinstance(event, ApprovalAsked)
                if not self._output.quiet or (asked and self.interactive):
                    self._screen.show(event)
                if isinstance(event, ApprovalAsked):
                    try:
                        await ask_person(event, here=self.interactive)
                    except KeyboardInterrupt:  # Ctrl-C here is Ctrl-C of the answer
                        self.interrupt()
                        raise asyncio.CancelledError from None

    def _report(self, result: Result, *, seen: bool) -> None:
        """Show how it ended, and the answer unless it was `seen`: of a team, only a lane is."""
        self._screen.line()
        if self._output.json:
            print_json(result.to_dict() | {"warnings": self._warned})
        elif result.answer is not None and not seen:
            if self._seen:
                self.say(result.answer, "answer")
            else:
                print(printable(result.answer), flush=True)
        if result.stop is not StopReason.ANSWERED:
            failed = result.stop is StopReason.INFRASTRUCTURE
            self.code = self.code or exit_code(result)
            if failed or not self._output.quiet:
                self.say(f"[{why_no_answer(result)}]", "error" if failed else "notice")
        if not self._output.quiet:
            left = f" · {left_line(self._budget.left)}" if self._budget.bounded else ""
            self.say(usage_line(result) + left, "dim")
            if self.interactive:
                self._screen.gap()
