"""`interlace run`: one question."""

import asyncio
import sys
from contextlib import aclosing, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..approval_options import GuardOptions, ask_person, left_line, read_approval, read_budget
from ..exits import Exit, guarded, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, Strategy, command, make_agent
from ..settings import folder_notice
from ..team_options import TeamOptions, who_answers

if TYPE_CHECKING:
    from rich.console import Console

    from ...agent import Agent
    from ...result import Result
    from ...run import Answerer
    from ..render.live_view import Screen

__all__ = ["as_json", "exit_code", "load", "run", "warnings"]

_TIERS = {
    "confined": "The model's Python code is confined, though this machine allows no namespaces: "
    "`interlace doctor` tells which walls stand.",
    "none": "The model's Python code runs as you, without isolation.",
}
"""What is said where the Python tool's walls are not all that there could be."""


@command
def run(
    question: Annotated[
        str | None,
        typer.Argument(help="The question; - or nothing reads all of stdin.", show_default=False),
    ] = None,
    *,
    strategy: Strategy = None,
    team: TeamOptions,
    model: ModelOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    output: OutputOptions,
) -> None:
    """Answer one question. The answer alone goes to stdout, all else to stderr."""
    with guarded(json=output.json, debug=output.debug):
        from ..render.terminal import make_console

        question = _question(question)
        terms = {"approve": read_approval(guard), "budget": read_budget(guard)}
        greedy = 0.0 if strategy is None else 1.0
        agent = make_agent(model, limits, temperature=greedy, strategy=strategy, **terms)
        console = make_console(sys.stderr)
        result = run_to_end(_answer(agent, who_answers(agent, team), question, console, output))
        raise typer.Exit(exit_code(result))


def _question(given: str | None) -> str:
    from ....tools.errors import UsageError

    if given is None and sys.stdin.isatty():
        raise UsageError('there is no question: interlace run "What is 17 * 23?"')
    text = given
    if given is None or given == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    text = (text or "").strip()
    if not text:
        raise UsageError("the question is empty")
    return text


async def _answer(
    agent: "Agent", who: "Answerer", question: str, console: "Console", output: OutputOptions
) -> "Result":
    from ...events import ApprovalAsked
    from ..render.live_view import Screen

    screen = Screen(console, answers=not sys.stdout.isatty(), format=agent.format)
    here = sys.stdin.isatty() and sys.stderr.isatty()
    async with agent:
        await load(agent, console, quiet=output.quiet)
        if not output.quiet:
            for warning in [*folder_notice(), *warnings(agent)]:
                screen.say(warning, "notice")
        try:
            async with aclosing(who.stream(question)) as events:
                async for event in events:
                    asked = isinstance(event, ApprovalAsked)
                    if not output.quiet or (asked and here):
                        screen.show(event)
                    if isinstance(event, ApprovalAsked):
                        await ask_person(event, here=here)
        finally:  # a stopped answer is told as well
            if who.last is not None:
                await _report(agent, who.last, screen, output)
    assert who.last is not None
    return who.last


async def _report(
    agent: "Agent", result: "Result", screen: "Screen", output: OutputOptions
) -> None:
    from ....rollout.trajectory import StopReason
    from ..render.live_view import usage_line, why_no_answer
    from ..render.terminal import printable

    screen.line()
    if output.json:
        print_json(as_json(result))
    elif result.answer is not None:
        print(printable(result.answer), flush=True)
    if result.stop is StopReason.INFRASTRUCTURE or (
        result.stop is not StopReason.ANSWERED and not output.quiet
    ):
        failed = result.stop is StopReason.INFRASTRUCTURE
        screen.say(f"[{why_no_answer(result)}]", "error" if failed else "notice")
    if not output.quiet:
        budget = agent.settings.budget
        left = f" · {left_line(budget.left)}" if budget.bounded else ""
        screen.say(usage_line(result) + left, "dim")


async def load(agent: "Agent", console: "Console", *, quiet: bool) -> None:
    """Load the model and start the tools, and say so on a terminal."""
    status = console.status(f"loading {agent.model}", spinner="dots")
    with nullcontext() if quiet or not console.is_terminal else status:
        await asyncio.gather(agent.policy(), agent.start_tools())


def warnings(agent: "Agent") -> list[str]:
    """Warnings for the user before the first question, once the tools are started."""
    from ....rollout.models.load import trained_formats
    from ....tools import PythonTool

    said = []
    if agent.model == "nano":
        said.append("nano is a tiny demonstration model: it knows its tasks and nothing else.")
    known = trained_formats(agent.model) if isinstance(agent.model, str) else ()
    if known and agent.format is not None and agent.format.name not in known:
        said.append(
            f"{agent.model} was never trained in the format {agent.format.name} and may write "
            f"nonsense in it: it was trained in {', '.join(known)}."
        )
    if why := getattr(agent.engine, "why", ""):
        said.append(f"The server speaks text only ({why}): what it says can't be trained on.")
    for tool in agent.tools:
        if isinstance(tool, PythonTool) and tool.tier in _TIERS:
            said.append(_TIERS[tool.tier])
    return said


def exit_code(result: "Result") -> Exit:
    """The exit code that says how a question ended."""
    from ....rollout.trajectory import StopReason

    if result.stop is StopReason.ANSWERED:
        return Exit.DONE
    if result.stop is StopReason.BUDGET:
        return Exit.BUDGET
    if result.denied and result.stop is not StopReason.INFRASTRUCTURE:
        return Exit.APPROVAL
    return Exit.UNAVAILABLE if result.stop is StopReason.INFRASTRUCTURE else Exit.NO_ANSWER


def as_json(result: "Result") -> dict[str, Any]:
    """A result as `--json` prints it."""
    trajectory = result.trajectory
    return {
        "question": result.question,
        "answer": result.answer,
        "stop": result.stop.value,
        "model": trajectory.model,
        "format": trajectory.format,
        "usage": asdict(result.usage),
        "calls": [
            {
                "tool": call.tool,
                "arguments": call.arguments,
                "output": call.output,
                "error": call.error.value if call.error else None,
                "seconds": round(call.seconds, 3),
                "state_lost": call.state_lost,
            }
            for call in result.calls
        ],
        "error": result.error,
    }
