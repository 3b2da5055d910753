"""`interlace run`: one question."""

import sys

from rich.console import Console

from ....rollout.trajectory import StopReason
from ....tools.errors import UsageError
from ...agent import Agent
from ...events import ApprovalAsked, Counted
from ...result import Result
from ...run import Answerer
from ..answering import exit_code, load, make_agent, warnings
from ..approvals import ask_person, left_line, read_approval, read_budget
from ..exits import print_json, run_to_end
from ..options import GuardOptions, LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.live_view import LiveView, usage_line, why_no_answer
from ..render.terminal import make_console, printable
from ..teams import make_team

__all__ = ["run"]


def run(
    question: str | None,
    strategy: str | None,
    team: TeamOptions,
    model: ModelOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    output: OutputOptions,
) -> int:
    """Answer one question and return the exit code."""
    question = _question(question)
    settings = {"approve": read_approval(guard), "budget": read_budget(guard)}
    greedy = 0.0 if strategy is None else 1.0
    agent = make_agent(model, limits, temperature=greedy, strategy=strategy, **settings)
    console = make_console(sys.stderr)
    who = make_team(agent, team) if team.team else agent
    return exit_code(run_to_end(_answer(agent, who, question, console, output)))


def _question(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        raise UsageError('the question is missing: interlace run "What is 17 * 23?"')
    text = given
    if given is None or given == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    text = (text or "").strip()
    if not text:
        raise UsageError("the question is empty")
    return text


async def _answer(
    agent: Agent, who: Answerer, question: str, console: Console, output: OutputOptions
) -> Result:
    here = sys.stdin.isatty() and sys.stderr.isatty()
    # An answer that is seen where it is written is not printed again. A team shows no words.
    seen = sys.stdout.isatty() and sys.stderr.isatty() and who is agent and agent.strategy is None
    seen = seen and not (output.quiet or output.json)
    screen = LiveView(console, answers=seen or not sys.stdout.isatty(), format=agent.format)
    async with agent:
        await load(agent, console, quiet=output.quiet)
        warned = list(warnings(agent))
        votes: list[Counted] = []
        if not output.quiet:
            for warning in warned:
                screen.say(warning, "notice")
        try:
            async with who.stream(question) as events:
                async for event in events:
                    votes += [event] if isinstance(event, Counted) else []
                    asked = isinstance(event, ApprovalAsked)
                    if not output.quiet or (asked and here):
                        screen.show(event)
                    if isinstance(event, ApprovalAsked):
                        await ask_person(event, here=here)
        finally:  # a stopped answer is reported as well
            if votes and not any(count.agree + count.against for count in votes):
                warned.append(
                    "No vote of the team could be read: no critic has checked this answer."
                )
                if not output.quiet:
                    screen.say(warned[-1], "notice")
            if who.last is not None:
                _report(agent, who.last, screen, output, warned, seen=seen)
    assert who.last is not None
    return who.last


def _report(
    agent: Agent,
    result: Result,
    screen: LiveView,
    output: OutputOptions,
    warned: list[str],
    *,
    seen: bool,
) -> None:
    screen.line()
    if output.json:
        print_json(result.to_dict() | {"warnings": warned})
    elif result.answer is not None and not seen:
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
