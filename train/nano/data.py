"""The nano policy's demonstrations: problems solved in conversations, in both formats."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...rollout.formats import FORMATS, Encoder, Message
from ...rollout.ledger import Ledger, Source, Span
from ...rollout.tokenizer import Tokenizer
from ...tools import Tool
from ..coldstart import Demonstration, Shares, demonstrate, to_ledger
from ..generators import Arithmetic

__all__ = ["DRILL", "FORMAT_NAMES", "FULL", "Lesson", "demonstrations", "ledgers", "texts"]

FORMAT_NAMES = ("retool", "hermes")
SESSION = 200
"""Conversations that share one session of the tool, whose start costs half a second."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One kind of demonstrations. `questions`: how many a conversation has, each as likely."""

    name: str
    questions: tuple[int, ...]
    shares: Shares
    system_prompt: bool = True


DRILL = Lesson(
    "drill",
    questions=(1,),
    shares=Shares(no_tool_offered=0, failed_attempt=0, outage=0),
    system_prompt=False,
)
"""Single problems without the system prompt, for the first steps. Copying digits from a question
into code is learnt by attending to a few tokens among all those in the context: it comes about much
sooner where there are a hundred of them than where there are four hundred."""

FULL = Lesson("conversation", questions=(1, 1, 2, 3, 4, 6), shares=Shares())


async def demonstrations(
    lesson: Lesson,
    count: int,
    seed: int,
    tool: Tool,
    progress: Callable[[int], None] | None = None,
) -> list[Demonstration]:
    """`count` conversations on training problems, the formats in turn. Runs all their code."""
    tasks = iter(Arithmetic(seed, "train"))
    made: list[Demonstration] = []
    while len(made) < count:
        async with tool.session() as session:
            for _ in range(min(SESSION, count - len(made))):
                rng = random.Random(f"{lesson.name} {seed} {len(made)}")
                asked = [next(tasks) for _ in range(rng.choice(lesson.questions))]
                format = FORMAT_NAMES[len(made) % len(FORMAT_NAMES)]
                made.append(await demonstrate(asked, format, session, rng, lesson.shares))
                if progress is not None:
                    progress(len(made))
    return made


class _Curt(Encoder):
    """Leaves the system prompt out."""

    def prompt(self, question: str, history: Sequence[Message] = ()) -> list[Span]:
        text = self.template.render([{"role": "user", "content": question}])
        return [Span.given(Source.PROMPT, self.tokenizer.encode(text))]


def ledgers(
    lesson: Lesson, made: Sequence[Demonstration], folder: Path, tool: Tool
) -> list[Ledger]:
    """The demonstrations as ledgers, with the tokenizer in `folder`."""
    tokenizer = Tokenizer.load(folder)
    kind = Encoder if lesson.system_prompt else _Curt
    encoders = {
        (name, with_tool): kind(FORMATS[name], tokenizer, (tool,) if with_tool else ())
        for name in FORMAT_NAMES
        for with_tool in (True, False)
    }
    return [to_ledger(each, encoders[each.format, each.with_tool]) for each in made]


def texts(made: Sequence[Demonstration], tool: Tool) -> Iterator[str]:
    """All the texts that the tokenizer learns from."""
    for name in FORMAT_NAMES:
        yield from [FORMATS[name].system(()), FORMATS[name].system((tool,))] * 50
    yield from [f"{tool.name} {tool.description}"] * 50
    for each in made:
        yield "system\nuser\nassistant\ntool\n" * 2
        for reply in each.replies:
            yield reply.task.question
            for step in reply.steps:
                yield step.text
                if step.call is not None:
                    yield FORMATS[each.format].render([step.call])
