"""The prompts for each role of a team, and the rules that a team follows.

The intent of each prompt is that of the CEO agent (arXiv 2504.09772), in our own words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...rollout.team.replies import AGREE, DISAGREE

__all__ = [
    "FIXED",
    "NO_FEEDBACK",
    "NO_RESOURCES",
    "NO_SOLUTION",
    "PAPER",
    "RolePrompt",
    "RolePrompts",
    "Rules",
]

NO_SOLUTION = "No solution yet."
NO_FEEDBACK = "No advice yet."
NO_RESOURCES = "No resources yet."


_OURS = re.compile(
    r"^(?=[ \t]*(?:</?history>|What came of running it:|None of the critics' votes could be read"
    r"|\[[^\]\n]{1,300}\]:))",
    re.I | re.M,
)
_BRACKETS = {ord("["): "(", ord("]"): ")"}
_TAG = re.compile(r"<(?=/?history>)", re.I)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules in which the released code differs from what the paper means."""

    name: str
    honours_stop: bool
    """Whether the CEO's decision to stop ends the run, once there is a solution."""
    clamps_experts: bool
    """Whether the number of experts has an upper bound, not in the CEO's prompt alone."""
    silence_agrees: bool
    """Whether a critic that can't be read agrees; else it abstains."""
    agrees_first: bool
    """Whether [Agree] anywhere in a review makes it agree; else the last mark counts."""
    tries: int
    """Calls of a role until it can be read."""
    nudges: bool
    """Whether each further try is sampled a little otherwise, with half the tokens above 8192."""
    overtime: bool
    """Whether the answer after a thought that was cut off may take tokens beyond the CEO's."""

    def forcing(self, tokens: int) -> tuple[int, int]:
        """Of an expert's tokens, those until its thought is cut off, and those for its answer."""
        if self.overtime:
            return max(1, tokens - 200), max(16, min(32768 - tokens, tokens // 2))
        tail = min(1024, tokens // 8)
        return max(1, tokens - tail), max(1, tail)


FIXED = Rules(
    "fixed",
    honours_stop=True,
    clamps_experts=True,
    silence_agrees=False,
    agrees_first=False,
    tries=2,
    nudges=False,
    overtime=False,
)
"""What the paper means."""
PAPER = Rules(
    "paper",
    honours_stop=False,
    clamps_experts=False,
    silence_agrees=True,
    agrees_first=True,
    tries=3,
    nudges=True,
    overtime=True,
)
"""What the released code does (MAS-TTS at ae8f961)."""


@dataclass(frozen=True, slots=True)
class RolePrompt:
    """A prompt for a role: what it is told about itself, and what it is asked."""

    system: str
    question: str


@dataclass(frozen=True, slots=True)
class RolePrompts:
    """The prompts of one question. `most` is the largest team, `menu` the tokens to choose from."""

    question: str
    most: int
    menu: tuple[int, ...]

    def ceo(self, solution: str, feedback: str, resources: str) -> RolePrompt:
        """Decide: go on or stop, how many experts, in what direction, with how many tokens."""
        system = (
            "You are the CEO of a team of experts that solves a problem together. You follow its "
            "progress and its resources, decide whether it goes on, how many experts it has, steer "
            "the discussion where the solution is wrong, and set how deep the experts think by the "
            f"tokens that each may use.\n\nProblem:\n{self.question}\n\nSolution so far:\n"
            f"{_data(solution)}\n\nEvaluation:\n{_data(feedback)}\n\nResources:\n{resources}"
        )
        menu = ", ".join(map(str, self.menu))
        question = (
            "Decide on the next round. Stop only if the solution is right. Recruit for the skills "
            f"that the evaluation misses: 2 to {self.most} experts, typically 2 or 3, {self.most} "
            "for hard problems. Aim the direction at the weakest part of the solution, or write "
            f"none. Choose the tokens from {menu}: more for harder problems. Answer in exactly "
            "these four lines:\n### Decision: continue or stop\n### Recruit Number: a number\n"
            "### Direction: one sentence\n### Maximum Tokens: a number"
        )
        return RolePrompt(system, question)

    def recruiter(self, count: int, feedback: str) -> RolePrompt:
        """Name the experts."""
        system = (
            f"You choose the experts who will solve a problem together.\n\nProblem:\n"
            f"{self.question}\n\nEvaluation of what was tried:\n{_data(feedback)}"
        )
        question = (
            f"Name exactly {count} experts whose skills complete each other and do not overlap, "
            "each in one line with a few words on what they know, as a numbered list:\n"
            "1. ...\n2. ...\nDo not solve the problem and do not compare methods."
        )
        return RolePrompt(system, question)

    def solver(self, name: str, direction: str, said: Sequence[tuple[str, str]]) -> RolePrompt:
        """Solve it, in the light of what was said."""
        system = f"You are {name}, and solve a problem for a team of experts."
        parts = [_history(said)]
        if direction:
            parts.append(f"Direction: {_data(direction)}")
        if said:
            parts.append("Solve this problem, and mend what was found wrong:")
        return RolePrompt(system, "\n\n".join([*filter(None, parts), self.question]))

    def repair(self, name: str, plan: str, again: str) -> RolePrompt:
        """Give the answer again, in the form that was asked for."""
        system = f"You are {name}, and solve a problem for a team of experts."
        parts = [self.question, _history([(name, plan)]), again]
        return RolePrompt(system, "\n\n".join(parts))

    def critic(self, name: str, direction: str, said: Sequence[tuple[str, str]]) -> RolePrompt:
        """Solve it yourself, compare, and vote."""
        system = (
            f"You are {name}, and check the solution of a colleague. Solve the problem yourself "
            "and compare your final answer with that of the last solution. Say what is wrong "
            f"with it without giving your answer away. End with {AGREE} if the answers are the "
            f"same, else with {DISAGREE}."
        )
        parts = [_history(said), f"Direction: {_data(direction)}" if direction else ""]
        question = f"{self.question}\n\nDo you agree with the last solution?"
        return RolePrompt(system, "\n\n".join([*filter(None, parts), question]))

    def executor(self, plan: str) -> RolePrompt:
        """Write tests of a solution that is code."""
        system = "You test programs that others have written."
        question = (
            f"Problem:\n{self.question}\n\nSolution:\n{_data(plan)}\n\n"
            "Write tests: one block of Python (```python) with asserts that call what the solution "
            "defines. It is run behind the solution's own code, in the same file."
        )
        return RolePrompt(system, question)

    def evaluator(
        self, experts: Sequence[str], plan: str, result: str, *, unheard: bool = False
    ) -> RolePrompt:
        """Judge the solution; `unheard`: there were critics, and none of their votes was read."""
        system = "You are an experienced reviewer of solutions, exact and fair."
        team = "\n".join(f"{number}. {name}" for number, name in enumerate(experts, 1))
        ran = f"\n\nWhat came of running it:\n{_data(result)}" if result else ""
        if unheard:
            ran += "\n\nNone of the critics' votes could be read."
        question = (
            f"Problem:\n{self.question}\n\nThe experts:\n{team}\n\nTheir solution:\n"
            f"{_data(plan)}{ran}\n\nJudge it. Answer in three lines:\n"
            "Correctness: 1 if it is right and complete, else 0\n"
            "Advice: what to do better\nRecruiting Suggestion: which experts are missing"
        )
        return RolePrompt(system, question)


def _history(said: Sequence[tuple[str, str]]) -> str:
    """The messages so far in one block."""
    if not said:
        return ""
    lines = "\n\n".join(f"[{sender.translate(_BRACKETS)}]: {_data(text)}" for sender, text in said)
    return f"<history>\n{lines}\n</history>"


def _data(text: str) -> str:
    """A member's text with every line quoted that reads as one of ours, and no tag of the history:
    no member speaks for another, or for us.
    """
    return _TAG.sub("&lt;", _OURS.sub("> ", text))
