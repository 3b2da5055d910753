"""A team whose model says what a script tells each role; graph, loop and tools are real."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from typing_extensions import TypeVar

from interlace import Agent, Limits, Sampling, Team
from interlace.rollout.engines import Chunk, Reply, Request, ScriptedEngine
from interlace.rollout.tokenizer import Tokenizer
from support.fakes import NANO, Echo

T = TypeVar("T", default=None)

TOKENIZER = Tokenizer.load(NANO)

# By these words of its prompt a role is known.
ROLES = {
    "ceo": "You are the CEO",
    "recruiter": "You choose the experts",
    "critic": "check the solution of a colleague",
    "executor": "You test programs",
    "evaluator": "experienced reviewer",
    "solver": "solve a problem for a team",
}


def decision(
    decision: str = "continue", n: object = 2, direction: str = "none", tokens: object = 512
) -> str:
    return (
        f"### Decision: {decision}\n### Recruit Number: {n}\n### Direction: {direction}\n"
        f"### Maximum Tokens: {tokens}"
    )


def verdict(correct: int, advice: str = "none") -> str:
    return f"Correctness: {correct}\nAdvice: {advice}\nRecruiting Suggestion: none"


def experts(*names: str) -> str:
    return "\n".join(f"{number}. {name}" for number, name in enumerate(names, 1))


class Cast(ScriptedEngine):
    """An engine that plays every role: each has its replies in order, and the last one for ever.

    `heard` is what each role was asked, in the order of the requests. `waits` says how long a
    request of a role waits, in seconds.
    """

    def __init__(
        self,
        replies: Mapping[str, Sequence[Reply]],
        waits: Callable[[str], float] = lambda role: 0.0,
        **options: Any,
    ) -> None:
        super().__init__(TOKENIZER, self._reply, **options)
        self._left = {role: list(said) for role, said in replies.items()}
        self._waits = waits
        self.heard: dict[str, list[str]] = defaultdict(list)
        self.order: list[str] = []
        """The roles, in the order of their requests."""

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        role = self._role(request)
        self.order.append(role)
        self.heard[role].append(TOKENIZER.decode(request.ids))
        await asyncio.sleep(self._waits(role))
        async for chunk in super().generate(request):
            yield chunk

    def _role(self, request: Request) -> str:
        context = TOKENIZER.decode(request.ids)
        return next(role for role, words in ROLES.items() if words in context)

    def _reply(self, request: Request) -> Reply:
        replies = self._left[self._role(request)]
        return replies.pop(0) if len(replies) > 1 else replies[0]


def cast(replies: Mapping[str, Sequence[Reply]] | None = None, **options: Any) -> Cast:
    """Everybody agrees at once, unless told otherwise."""
    usual: dict[str, Sequence[Reply]] = {
        "ceo": [decision()],
        "recruiter": [experts("Ada", "Bob", "Cyd", "Dan", "Eve", "Fay")],
        "solver": ["It is <answer>\\boxed{42}</answer>"],
        "critic": ["The same. [Agree]"],
        "executor": ["```python\nassert f() == 42\n```"],
        "evaluator": [verdict(1)],
    }
    return Cast({**usual, **(replies or {})}, **options)


def team(
    engine: ScriptedEngine,
    agent: Mapping[str, Any] | None = None,
    output: type[T] | None = None,
    **options: Any,
) -> Team[T]:
    """A team of such an engine; `agent` is what its agent is made with besides."""
    usual: dict[str, Any] = {
        "tools": [Echo()],
        "limits": Limits(max_tokens=1024),
        "sampling": Sampling(seed=0),
    }
    made = Agent(engine, format="retool", **{**usual, **(agent or {})})
    return Team.ceo(made, output=output, **options)
