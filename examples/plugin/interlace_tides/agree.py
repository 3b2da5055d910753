"""A strategy: ask until an answer has come twice."""

from interlace.rollout.many.strategies import Ask, Decision
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode

__all__ = ["agree"]


async def agree(ask: Ask, task: Task, *, most: int = 5) -> Decision:
    """The first answer that two attempts give; after `most` attempts, the last one's."""
    seen: set[str] = set()
    made: list[Episode] = []
    for _ in range(most):
        made.append(await ask(task.question))
        answer = made[-1].answer
        if answer is not None and answer in seen:
            break
        seen |= {answer} if answer is not None else set()
    return Decision(made[-1], {"name": "agree", "attempts": len(made)})
