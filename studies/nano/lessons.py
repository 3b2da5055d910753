"""The nano policy's demonstrations: problems solved in conversations, in every format."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from interlace.rollout.formats import FORMATS, Encoder, Message
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.tools import Tool, ToolSession
from interlace.train.coldstart import Demonstration, to_ledger
from interlace.train.data.task_tools import TaskTools

from .families import BY_HEART, FAMILIES, Family
from .solver import Shares

__all__ = [
    "DRILL",
    "FULL",
    "LESSONS",
    "POLISH",
    "PRACTICE",
    "Lesson",
    "demonstrations",
    "ledgers",
    "texts",
]

LESSONS = (
    ("arithmetic", "retool"),
    ("arithmetic", "hermes"),
    ("database", "reex_sql"),
    ("lookup", "search_r1"),
    ("arithmetic", "retool"),
    ("arithmetic", "hermes"),
    ("database", "hermes"),
    ("lookup", "hermes"),
)
"""What demonstrations show, in turn. Arithmetic has the most kinds of questions, and short ones."""

HARDER = tuple(dict.fromkeys(LESSONS))
"""Each family as often as the others: copying names and spellings takes longest to learn."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One kind of demonstrations: single problems without the system prompt, or conversations."""

    name: str
    shares: Shares
    conversations: bool
    shows: tuple[tuple[str, str], ...] = LESSONS
    """Families and formats, in turn."""
    families: Mapping[str, Family] = field(default_factory=lambda: FAMILIES)
    seed: int = 0
    """Added to the recipe's: lessons with different ones have different problems."""


DRILL = Lesson(
    "drill",
    Shares(no_tool_offered=0, failed_attempt=0, outage=0, several_tools=0),
    conversations=False,
)
"""For the first steps. Copying from a question into a call is learnt by attending to a few tokens
among all those in the context: it comes about much sooner where there are a hundred of them than
where there are four hundred."""

FULL = Lesson("conversation", Shares(), conversations=True)
PRACTICE = tuple(
    Lesson("practice", Shares(), conversations=True, shows=HARDER, seed=seed) for seed in (1, 2)
)
POLISH = Lesson("polish", Shares(), conversations=True, families=BY_HEART, seed=3)


async def demonstrations(
    lesson: Lesson,
    count: int,
    seed: int,
    world: TaskTools,
    progress: Callable[[int], None] | None = None,
) -> list[Demonstration]:
    """`count` conversations on training problems, what the lesson shows in turn.

    Makes all their calls.
    """
    seed += lesson.seed
    sources = {name: iter(family.source(seed, "train")) for name, family in lesson.families.items()}
    made: list[Demonstration] = []
    async with _Sessions(world) as sessions:
        while len(made) < count:
            rng = random.Random(f"{lesson.name} {seed} {len(made)}")
            name, format = lesson.shows[len(made) % len(lesson.shows)]
            writer = _Writer(lesson, sessions, rng, format)
            made.append(await writer.write(lesson.families[name], sources))
            if progress is not None:
                progress(len(made))
    return made


class _Sessions:
    """The tools' sessions. The interpreter's is shared by all, since its start takes long."""

    def __init__(self, world: TaskTools) -> None:
        self.world = world
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "_Sessions":
        opening = self.world.python.session()
        self.python = await self._stack.enter_async_context(opening)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def of(self, tool: Tool, stack: AsyncExitStack) -> ToolSession:
        """A session of a tool, until `stack` is left."""
        if tool is self.world.python:
            return self.python
        return await stack.enter_async_context(tool.session())


class _Writer:
    """Writes one conversation."""

    def __init__(
        self, lesson: Lesson, sessions: _Sessions, rng: random.Random, format: str
    ) -> None:
        self.lesson = lesson
        self.sessions = sessions
        self.rng = rng
        self.format = format

    async def write(self, family: Family, sources: dict[str, Iterator[Task]]) -> Demonstration:
        """The first task of each family comes from `sources`, further ones are like it."""
        shares, rng, world = self.lesson.shares, self.rng, self.sessions.world
        several = self.format == "hermes" and rng.random() < shares.several_tools
        names = rng.sample(sorted(sources), len(sources)) if several else [family.name]
        first = {name: next(sources[name]) for name in names}
        offered = {name: world.tool(first[name]) for name in names}
        if not several and family.twin is None and rng.random() < shares.no_tool_offered:
            offered = {}
        number = rng.choice(family.questions) if self.lesson.conversations else 1
        for tool in offered.values():
            assert tool.description  # a database's is read now, while its process is there
        replies = []
        for index in range(number):
            asked = self.lesson.families[rng.choice(names)] if several else family
            task = first[asked.name]
            if index:
                task = asked.alike(rng.randrange(2**31), task)[0]
            # In a longer conversation, later questions would contradict an altered answer.
            altered = number == 1 and asked.twin is not None and rng.random() < shares.altered
            if altered and asked.twin is not None and task.data["needs_tool"]:
                task = asked.twin(task)
            async with AsyncExitStack() as stack:
                session = None
                if offered:
                    session = await self.sessions.of(world.tool(task), stack)
                replies.append(await asked.solve(task, self.format, session, rng, shares))
        return Demonstration(self.format, tuple(offered.values()), replies)


class _Curt(Encoder):
    """Leaves the system prompt out, but for the tables of a database."""

    def __init__(self, format: str, tokenizer: Tokenizer, tools: Sequence[Tool]) -> None:
        super().__init__(FORMATS[format], tokenizer, tools)
        self.tables = "\n".join(tool.description for tool in tools if tool.name == "sql")

    def prompt(self, question: str, history: Sequence[Message] = ()) -> list[Span]:
        system = [{"role": "system", "content": self.tables}] if self.tables else []
        text = self.template.render([*system, {"role": "user", "content": question}])
        return [Span.given(Source.PROMPT, self.tokenizer.encode(text))]


def ledgers(lesson: Lesson, made: Sequence[Demonstration], folder: Path) -> list[Ledger]:
    """The demonstrations as ledgers, with the tokenizer in `folder`."""
    tokenizer = Tokenizer.load(folder)
    encoders: dict[tuple[str, ...], Encoder] = {}
    written = []
    for each in made:
        key = (each.format, *(tool.description for tool in each.tools))
        if key not in encoders:
            if lesson.conversations:
                encoders[key] = Encoder(FORMATS[each.format], tokenizer, each.tools)
            else:
                encoders[key] = _Curt(each.format, tokenizer, each.tools)
        written.append(to_ledger(each, encoders[key]))
    return written


def texts(made: Sequence[Demonstration]) -> Iterator[str]:
    """All the texts that the tokenizer learns from."""
    for each in made:
        yield "system\nuser\nassistant\ntool\n" * 2
        yield FORMATS[each.format].system(each.tools)
        yield FORMATS[each.format].system(())
        for tool in each.tools:
            yield f"{tool.name} {tool.description}"
        for reply in each.replies:
            yield reply.task.question
            for step in reply.steps:
                yield step.text
                if step.call is not None:
                    yield FORMATS[each.format].render([step.call])
