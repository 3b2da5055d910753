"""State of a team's graph while it runs, and the sizes of the team: plain data."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypedDict

from .roles import NO_FEEDBACK, NO_RESOURCES, NO_SOLUTION, Rules

__all__ = ["State", "TeamAnswer", "TeamPlan", "TeamQuestion", "Update", "opening"]

Update: TypeAlias = dict[str, Any]


def _gather(before: list[Update], new: list[Update] | None) -> list[Update]:
    """Votes come in one by one; None clears them for the next turn."""
    return [] if new is None else [*before, *new]


class TeamQuestion(TypedDict):
    """The input from a graph around the team."""

    question: str


class TeamAnswer(TypedDict, total=False):
    """All that a graph around the team is given."""

    answer: str | None
    solution: str
    why: str


class State(TypedDict, total=False):
    """The team's own state, which no graph around it sees."""

    run: str
    """The id under which the run's calls are found."""
    question: str
    round: int
    turn: int
    """Within the round's discussion."""
    count: int
    """Experts of this round: the solver and its critics."""
    tokens: int
    """What each of them may use in one answer."""
    direction: str
    experts: list[str]
    said: list[Update]
    """Everything said among the experts: sender, text, round."""
    solution: str
    answer: str | None
    plan: str
    """The key of the call that gave the solution."""
    feedback: str
    resources: str
    votes: Annotated[list[Update], _gather]
    output: str
    correct: bool
    repairs: int
    """How often the answer was given again, since it did not fit."""
    why: str
    """Why the run ended: accepted, stopped, rounds, budget, cancelled, infrastructure; "" before.
    """


@dataclass(frozen=True, slots=True)
class TeamPlan:
    """The sizes of a team. `critiques` bounds the critics' turns in a round; `tokens` are the least
    and the most that a CEO may give an expert, and what it gets where the CEO says nothing is the
    most.
    """

    rules: Rules
    max_experts: int
    rounds: int
    critiques: int
    tokens: tuple[int, int]

    @property
    def menu(self) -> tuple[int, ...]:
        """The tokens that a CEO is offered: powers of two between the ends, and the ends."""
        least, most = self.tokens
        steps = [least]
        while steps[-1] * 2 < most:
            steps.append(steps[-1] * 2)
        return (*steps, most) if most > least else (least,)

    @property
    def most_steps(self) -> int:
        """Steps of the graph that the longest run takes."""
        return self.rounds * (5 + 3 * self.critiques) + 9


def opening(run: str, question: str) -> State:
    """The state that a run begins with."""
    return State(
        run=run,
        question=question,
        round=0,
        turn=0,
        count=0,
        tokens=0,
        direction="",
        experts=[],
        said=[],
        solution=NO_SOLUTION,
        answer=None,
        plan="",
        feedback=NO_FEEDBACK,
        resources=NO_RESOURCES,
        votes=[],
        output="",
        correct=False,
        repairs=0,
        why="",
    )
