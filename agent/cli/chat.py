"""`interlace chat`: one question after the other, in one context."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Protocol

import typer

from .ending import Exit, guarded, print_json, run_to_end
from .options import LimitOptions, ModelOptions, OutputOptions, command, make_agent
from .run import as_json, exit_code, load, warnings

if TYPE_CHECKING:
    from ..agent import Agent
    from ..conversation import Conversation
    from ..result import Result

__all__ = ["chat"]

HELP = """\
/help        this list
/reset       forget the conversation and the Python state
/tools       the tools and the format
/save FILE   add the conversation to a log, which `interlace show FILE` reads
/quit        leave (Ctrl-D does too)
Alt-Enter, or a backslash at the end of a line, goes on in the next line.
Ctrl-C stops an answer; what was said until then stays in the conversation."""


@command
def chat(model: ModelOptions, limits: LimitOptions, output: OutputOptions) -> None:
    """Talk to a model. What is said and the Python state are kept from question to question.

    Without a terminal, each line of stdin is a question and each answer a line on stdout.
    """
    with guarded(json=output.json, debug=output.debug):
        agent = make_agent(model, limits, temperature=0.0)
        interactive = sys.stdin.isatty() and sys.stderr.isatty()
        talk = Chat(agent, output, interactive)
        raise typer.Exit(run_to_end(talk.run(), interrupt=not interactive))


class Questions(Protocol):
    """Where questions come from."""

    def read(self) -> AsyncIterator[str]:
        """One question after the other."""
        ...


class Chat:
    """A conversation on the terminal, or through pipes."""

    def __init__(self, agent: "Agent", output: OutputOptions, interactive: bool) -> None:
        from .screen import Screen
        from .terminal import make_console

        self._agent = agent
        self._output = output
        self._interactive = interactive
        self._console = make_console(sys.stderr)
        self._screen = Screen(self._console)
        # On a terminal the answer is seen where it is written; it is not repeated on stdout.
        self._seen = interactive and sys.stdout.isatty() and not (output.quiet or output.json)
        self._stack = AsyncExitStack()
        self._conversation: Conversation | None = None
        self._code = Exit.DONE

    async def run(self) -> Exit:
        """Answer until there are no more questions; the exit code of the first that failed."""
        async with self._agent, self._stack:
            questions: Questions = _Piped()
            if self._interactive:
                questions = self._prompt()
            else:
                await load(self._agent, self._console, quiet=self._output.quiet)
                if not self._output.quiet:
                    self._warn()
            async with aclosing(questions.read()) as lines:  # type: ignore[type-var]
                async for line in lines:
                    if line.startswith("/") and await self._obey(line):
                        break
                    if line and not line.startswith("/"):
                        await self._answer(line)
        return Exit.DONE if self._interactive else self._code

    def _prompt(self) -> Questions:
        from .prompt import Prompt

        if not self._output.quiet:
            name = self._agent.model
            self._screen.say(f"interlace chat with {name}; /help, Ctrl-D leaves", "dim")
            self._warn()
        # The model is loaded while the person types.
        return Prompt(asyncio.create_task(self._agent.policy()))

    def _warn(self) -> None:
        for warning in warnings(self._agent):
            self._screen.say(warning, "notice")

    async def _answer(self, question: str) -> None:
        """Answer one question; on a terminal, Ctrl-C stops the answer alone."""
        await load(self._agent, self._console, quiet=self._output.quiet)
        if self._conversation is None:
            opening = self._agent.conversation()
            self._conversation = await self._stack.enter_async_context(opening)
        task = asyncio.create_task(self._stream(self._conversation.stream(question)))
        loop = asyncio.get_running_loop()
        if self._interactive:
            loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            ours = asyncio.current_task()
            if ours is not None and ours.cancelling():  # the whole program is to stop
                raise
        finally:
            if self._interactive:
                loop.remove_signal_handler(signal.SIGINT)
            if self._conversation.last is not None:
                self._report(self._conversation.last)

    async def _stream(self, events: "AsyncGenerator[object, None]") -> None:
        async with aclosing(events):
            async for event in events:
                if not self._output.quiet:
                    self._screen.show(event)  # type: ignore[arg-type]

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
                self._screen.say(f"[{why_no_answer(result)}]", "error" if failed else "notice")
        if not self._output.quiet:
            self._screen.say(usage_line(result), "dim")
            if self._interactive:
                self._screen.gap()

    async def _obey(self, line: str) -> bool:
        """Carry out a slash command; whether it was the last."""
        word, _, rest = line.partition(" ")
        if word in ("/quit", "/exit"):
            return True
        if word == "/help":
            self._screen.say(HELP, "dim")
        elif word == "/reset":
            await self._stack.aclose()
            self._conversation = None
            self._screen.say("[forgotten: the conversation and the state of the tools]", "notice")
        elif word == "/tools":
            policy = await self._agent.policy()
            for tool in policy.tools.values():
                self._screen.say(f"{tool.name}: {tool.description}", "dim")
            self._screen.say(f"format: {policy.format.name}", "dim")
        elif word == "/save":
            self._save(rest.strip())
        else:
            self._screen.say(f"[there is no {word}; /help lists what there is]", "notice")
        return False

    def _save(self, path: str) -> None:
        from ...rollout.store import EpisodeLog
        from ...tools.errors import DataError

        if not path or self._conversation is None or not self._conversation.episode.started:
            why = "/save needs a file's name" if not path else "there is nothing to save yet"
            self._screen.say(f"[{why}]", "notice")
            return
        try:
            with EpisodeLog(path) as log:
                log.append(self._conversation.episode)
            self._screen.say(f"[saved; interlace show {path}]", "notice")
        except DataError as error:
            self._screen.say(f"[{error}]", "error")


class _Piped:
    """Each line of stdin is a question."""

    async def read(self) -> AsyncGenerator[str, None]:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            yield line.decode("utf-8", "replace").strip()
