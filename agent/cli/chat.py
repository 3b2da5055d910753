"""`interlace chat`: one question after the other, in one context."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from .config import folder_notice, settings
from .ending import Exit, guarded, print_json, run_to_end
from .guard import GuardOptions, ask_person, left_line, read_approval, read_budget
from .options import LimitOptions, ModelOptions, OutputOptions, command, make_agent
from .run import as_json, exit_code, load, warnings

if TYPE_CHECKING:
    from ..agent import Agent
    from ..conversation import Conversation
    from ..conversations import Conversations
    from ..result import Result
    from ..running import Run

__all__ = ["Chat", "chat"]


@dataclass(frozen=True, kw_only=True)
class KeepOptions:
    """Which conversation, and whether it is kept."""

    resume: Annotated[
        bool,
        typer.Option("--resume", "-r", help="Go on with the latest conversation, or that of ID."),
    ] = False
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            help="Keep the conversation, to be resumed. Default: on a terminal.",
            show_default=False,
        ),
    ] = None


@command
def chat(
    id: Annotated[
        str | None,
        typer.Argument(help="With --resume: the id, or how it begins.", show_default=False),
    ] = None,
    *,
    model: ModelOptions,
    keep: KeepOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    output: OutputOptions,
) -> None:
    """Talk to a model. What is said and the Python state are kept from question to question.

    Without a terminal, each line of stdin is a question and each answer a line on stdout.
    """
    with guarded(json=output.json, debug=output.debug):
        from ...tools.errors import UsageError

        if id is not None and not keep.resume:
            raise UsageError(f"to go on with a conversation: interlace chat --resume {id}")
        talk = Chat(model, limits, guard, output)
        talk.keep(keep, id)
        raise typer.Exit(run_to_end(talk.run(), interrupt=not talk.interactive))


class Questions(Protocol):
    """Where questions come from."""

    def read(self) -> AsyncIterator[str]:
        """One question after the other."""
        ...


class Chat:
    """A conversation on the terminal, or through pipes. `example` stands at the first prompt."""

    def __init__(
        self,
        model: ModelOptions,
        limits: LimitOptions,
        guard: GuardOptions,
        output: OutputOptions,
        *,
        example: str = "",
    ) -> None:
        """Raises UsageError, and ModelError for a model that is not there."""
        from ...rollout.budget import Budget
        from ..approval import Approval
        from .screen import Screen
        from .terminal import make_console

        self.interactive = sys.stdin.isatty() and sys.stderr.isatty()
        self.conversation: Conversation | None = None
        self.approval: Approval = read_approval(guard) or Approval("allow")
        self._model, self._limits, self._output = model, limits, output
        self._budget: Budget = read_budget(guard)
        self._example = example
        self._store: Conversations | None = None
        self._resume: str | None = None
        self._console = make_console(sys.stderr)
        self._screen = Screen(self._console)
        # On a terminal the answer is seen where it is written; it is not repeated on stdout.
        self._seen = self.interactive and sys.stdout.isatty() and not (output.quiet or output.json)
        self._stack = AsyncExitStack()
        self._code = Exit.DONE
        self.agent: Agent = self._make_agent()

    def keep(self, options: KeepOptions, id: str | None) -> None:
        """Open what is kept, if it is to be. Raises DataError and UsageError."""
        from ...tools.errors import DataError, UsageError
        from ..conversations import Conversations

        wanted = self.interactive if options.keep is None else options.keep
        if not (wanted or options.resume):
            return
        try:
            self._store = Conversations()
        except DataError as error:
            if options.resume or options.keep:
                raise
            self.say(f"[not kept: {error}]", "notice")
            return
        if options.resume:
            self._resume = self._store.find(id)
            saved = self._store.load(self._resume)
            made = saved.episode.trajectory
            if self._model.model not in (settings("chat")["model"].value, made.model):
                raise UsageError(
                    f"the conversation {self._resume} is one with {made.model}: /model "
                    f"{self._model.model} goes on with another, once it is resumed"
                )
            tools = list(saved.tools) or ["none"]
            self._model = replace(self._model, model=made.model, format=made.format, tool=tools)
        self.agent = self._make_agent()

    def _make_agent(self) -> "Agent":
        terms: dict[str, Any] = {"approve": self.approval, "budget": self._budget}
        terms["conversations"] = self._store
        return make_agent(self._model, self._limits, temperature=0.0, **terms)

    def say(self, text: str, kind: str = "words") -> None:
        """A line on the screen."""
        self._screen.say(text, kind)

    async def run(self) -> Exit:
        """Answer until there are no more questions; the exit code of the first that failed."""
        from .slash import obey

        try:
            questions: Questions = _Piped()
            if self.interactive:
                questions = await self._prompt()
            else:
                await load(self.agent, self._console, quiet=self._output.quiet)
                if not self._output.quiet:
                    self._warn()
            async with aclosing(questions.read()) as lines:  # type: ignore[type-var]
                async for line in lines:
                    if line.startswith("/") and await obey(self, line):
                        break
                    if line and not line.startswith("/"):
                        await self.answer(line)
        finally:
            await self.forget()
            await self.agent.aclose()
        return Exit.DONE if self.interactive else self._code

    async def answer(self, question: str, *, team: bool = False) -> None:
        """Answer one question; on a terminal, Ctrl-C stops the answer alone. A `team` of such
        agents answers outside of the conversation.
        """
        await load(self.agent, self._console, quiet=self._output.quiet)
        from ..team.team import Team

        who: Team | Conversation = await self._open() if not team else Team.ceo(self.agent)
        task = asyncio.create_task(self._stream(who.stream(question)))
        loop = asyncio.get_running_loop()
        if self.interactive:
            loop.add_signal_handler(signal.SIGINT, task.cancel)
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
                self._report(who.last)

    def undo(self) -> str | None:
        """Take back the last question."""
        return self.conversation.undo() if self.conversation is not None else None

    async def forget(self) -> None:
        """End the conversation: the next question begins another."""
        self.conversation = None
        self._resume = None
        await self._stack.aclose()

    async def change_model(self, name: str) -> None:
        """Go on with another model, which begins with what was said. Raises as loading does."""
        before, old, model = self.conversation, self.agent, self._model
        self._model = replace(model, model=name, format=None)
        try:
            # Fetching may take long, and must not stop the loop.
            self.agent = await asyncio.to_thread(self._make_agent)
            await load(self.agent, self._console, quiet=self._output.quiet)
        except BaseException:
            self.agent, self._model = old, model
            raise
        await self.forget()
        await old.aclose()
        opening = self.agent.conversation(after=before)
        self.conversation = await self._stack.enter_async_context(opening)

    async def _open(self) -> "Conversation":
        if self.conversation is None:
            opening = self.agent.conversation(resume=self._resume)
            self.conversation = await self._stack.enter_async_context(opening)
        return self.conversation

    async def _prompt(self) -> Questions:
        from .prompt import Prompt
        from .slash import COMMANDS

        # The model is loaded while the person types; the tools' walls are what they are told of.
        loading = asyncio.create_task(self.agent.policy())
        await self.agent.start_tools()
        if not self._output.quiet:
            name = self.agent.model
            self.say(f"interlace chat with {name}; /help, Ctrl-D leaves", "dim")
            self._warn()
        if self._resume is not None:
            await self._tell_resumed()
        return Prompt(loading, words=sorted(COMMANDS), example=self._example)

    async def _tell_resumed(self) -> None:
        """Show where the conversation stands."""
        conversation = await self._open()
        questions = conversation.questions
        self.say(f"[resumed: {len(questions)} questions; the tools begin anew]", "notice")
        for one in questions[-3:]:
            answer = one.answer if one.answer is not None else f"({one.stop})"
            self.say(f"> {one.question}", "dim")
            self.say(answer, "answer")

    def _warn(self) -> None:
        notice = [] if self._example else folder_notice()  # the first chat has no settings
        for warning in [*notice, *warnings(self.agent)]:
            self.say(warning, "notice")

    async def _stream(self, run: "Run") -> None:
        from ..events import ApprovalAsked

        async with aclosing(run):
            async for event in run:
                asked = isinstance(event, ApprovalAsked)
                if not self._output.quiet or (asked and self.interactive):
                    self._screen.show(event)
                if isinstance(event, ApprovalAsked):
                    try:
                        await ask_person(event, here=self.interactive)
                    except KeyboardInterrupt:  # Ctrl-C here is Ctrl-C of the answer
                        raise asyncio.CancelledError from None

    def _report(self, result: "Result") -> None:
        from ...rollout.trajectory import StopReason
        from .screen import usage_line, why_no_answer
        from .terminal import printable

        self._screen.line()
        if self._output.json:
            print_json(as_json(result))
        elif result.answer is not None and not self._seen:
            print(printable(result.answer), flush=True)
        if result.stop is not StopReason.ANSWERED:
            failed = result.stop is StopReason.INFRASTRUCTURE
            self._code = self._code or exit_code(result)
            if failed or not self._output.quiet:
                self.say(f"[{why_no_answer(result)}]", "error" if failed else "notice")
        if not self._output.quiet:
            left = f" · {left_line(self._budget.left)}" if self._budget.bounded else ""
            self.say(usage_line(result) + left, "dim")
            if self.interactive:
                self._screen.gap()


class _Piped:
    """Each line of stdin is a question."""

    async def read(self) -> AsyncGenerator[str, None]:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            yield line.decode("utf-8", "replace").strip()
