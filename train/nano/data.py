"""The nano policy's demonstrations: problems solved in conversations, in both formats."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...rollout.formats import FORMATS, Encoder
from ...rollout.ledger import Ledger
from ...rollout.tokenizer import Tokenizer
from ...tools import Tool
from ..coldstart import Demonstration, demonstrate, to_ledger
from ..generators import Arithmetic

__all__ = ["FORMAT_NAMES", "demonstrations", "ledgers", "texts"]

FORMAT_NAMES = ("retool", "hermes")

QUESTIONS = (1, 1, 2, 3, 4, 6)
"""How many questions a conversation has; each entry is as likely."""
SESSION = 200
"""Conversations that share one session of the tool, whose start costs half a second."""


async def demonstrations(
    count: int, seed: int, tool: Tool, progress: Callable[[int], None] | None = None
) -> list[Demonstration]:
    """`count` conversations on training problems, the formats in turn. Runs all their code."""
    tasks = iter(Arithmetic(seed, "train"))
    made: list[Demonstration] = []
    while len(made) < count:
        async with tool.session() as session:
            for _ in range(min(SESSION, count - len(made))):
                rng = random.Random(f"demonstration {seed} {len(made)}")
                asked = [next(tasks) for _ in range(rng.choice(QUESTIONS))]
                format = FORMAT_NAMES[len(made) % len(FORMAT_NAMES)]
                made.append(await demonstrate(asked, format, session, rng))
                if progress is not None:
                    progress(len(made))
    return made


def ledgers(made: Sequence[Demonstration], folder: Path, tool: Tool) -> list[Ledger]:
    """The demonstrations as ledgers, with the tokenizer in `folder`."""
    tokenizer = Tokenizer.load(folder)
    encoders = {
        (name, with_tool): Encoder(FORMATS[name], tokenizer, (tool,) if with_tool else ())
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
