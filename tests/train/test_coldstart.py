"""Demonstrations: really run, honest about failures, and trainable exactly where they should be."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from studies.nano.families import is_right
from studies.nano.lessons import DRILL, FULL, LESSONS, demonstrations, ledgers, texts
from studies.nano.tokenizer import CONTROL, build_tokenizer

from interlace.rollout.formats import FORMATS, Encoder
from interlace.rollout.ledger import Source
from interlace.rollout.task import equal_answers
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import FinishReason
from interlace.tools.python import PythonTool
from interlace.train.coldstart import Demonstration, Reply
from interlace.train.data.task_tools import TaskTools


async def write(count: int) -> tuple[list[Demonstration], list[bool]]:
    """Conversations, and whether each one's last answer is right where nothing was altered."""
    async with TaskTools() as world:
        made = await demonstrations(FULL, count, 3, world)
        right = []
        for each in made:
            for reply in each.replies:
                answer = answered(each, reply)
                right.append(
                    reply.altered or await is_right(world, reply.task, each.format, answer)
                )
        return made, right


def answered(each: Demonstration, reply: Reply) -> str:
    parsed = FORMATS[each.format].parse(reply.steps[-1].text, FinishReason.EOS, ())
    assert parsed.answer is not None
    return parsed.answer


@pytest.fixture(scope="module")
def written() -> tuple[list[Demonstration], list[bool]]:
    return asyncio.run(write(120))


@pytest.fixture(scope="module")
def made(written: tuple[list[Demonstration], list[bool]]) -> list[Demonstration]:
    return written[0]


@pytest.fixture(scope="module")
def folder(made: list[Demonstration], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(texts(made), 600, path)
    return path


def replies(made: list[Demonstration]) -> list[Reply]:
    return [reply for each in made for reply in each.replies]


def test_the_same_seed_makes_the_same_demonstrations(made: list[Demonstration]) -> None:
    again, _ = asyncio.run(write(9))
    assert again == made[:9]


def test_every_family_is_shown_in_its_formats(made: list[Demonstration]) -> None:
    assert {each.format for each in made} == {format for _, format in LESSONS}
    called = {s.call.tool for r in replies(made) for s in r.steps if s.call is not None}
    assert called == {"python", "sql", "search"}
    several = [each for each in made if len(each.tools) == 3]
    assert several and {each.format for each in several} == {"hermes"}


def test_outputs_are_those_of_the_code_when_it_is_run_again(made: list[Demonstration]) -> None:
    async def run() -> int:
        compared = 0
        async with PythonTool() as tool:
            for reply in replies(made)[:80]:
                calls = [step.call for step in reply.steps if step.call is not None]
                if reply.altered or not calls or calls[0].tool != "python":
                    continue
                async with tool.session() as session:
                    for call in calls:
                        again = await session.call(dict(call.arguments or {}), 10.0)
                        # The cell's number in a traceback counts the calls of the session.
                        assert again.text.splitlines()[-1] == call.output.splitlines()[-1]
                        assert again.error == call.error
                        compared += 1
        return compared

    assert asyncio.run(run()) > 8


def test_an_answer_is_the_right_one_or_follows_the_altered_result(
    written: tuple[list[Demonstration], list[bool]],
) -> None:
    made, right = written
    assert all(right)
    altered = 0
    for each in made:
        for reply in each.replies:
            shown = [step.call for step in reply.steps if step.call is not None]
            if reply.altered and shown[-1].error is None:
                altered += 1
                assert equal_answers(answered(each, reply), shown[-1].output)
    assert altered > 10


def test_failed_attempts_are_shown_but_not_learnt(made: list[Demonstration], folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    failed = 0
    for each, ledger in zip(made, ledgers(FULL, made, folder), strict=True):
        steps = [step for reply in each.replies for step in reply.steps]
        spans = [span for span in ledger if span.source is Source.POLICY]
        for step, span in zip(steps, spans, strict=True):
            assert span.weight == step.weight
            assert tokenizer.decode(span.ids).removesuffix(CONTROL[2]) == step.text
            if step.weight == 0 and step.call is not None:
                failed += 1
                assert step.call.error is not None or step.call.output == "(no output)"
        others = [source is not Source.POLICY for source in ledger.sources]
        assert not ledger.loss_weights[others].any()
    assert failed > 5


def test_the_format_reads_the_calls_as_they_were_meant(made: list[Demonstration]) -> None:
    for each in made:
        format = FORMATS[each.format]
        for reply in each.replies:
            for step in reply.steps:
                finish = FinishReason.STOP if step.call and format.inline else FinishReason.EOS
                parsed = format.parse(step.text, finish, each.tools)
                meant = [(step.call.tool, step.call.arguments)] if step.call else []
                assert [(call.tool, call.arguments) for call in parsed.calls] == meant
                assert parsed.complete and not parsed.forged


def test_a_ledger_begins_as_the_prompt_of_the_same_question_does(
    made: list[Demonstration], folder: Path
) -> None:
    tokenizer = Tokenizer.load(folder)
    for each, ledger in zip(made, ledgers(FULL, made, folder), strict=True):
        encoder = Encoder(FORMATS[each.format], tokenizer, each.tools)
        prompt = encoder.prompt(each.replies[0].task.question)
        assert ledger.spans[: len(prompt)] == tuple(prompt)
        assert np.array_equal(tokenizer.encode(tokenizer.decode(prompt[0].ids)), prompt[0].ids)


def test_a_drill_is_the_same_without_the_system_prompt(folder: Path) -> None:
    async def run() -> list[Demonstration]:
        async with TaskTools() as world:
            return await demonstrations(DRILL, 8, 3, world)

    tokenizer = Tokenizer.load(folder)
    drills = asyncio.run(run())
    for each, ledger in zip(drills, ledgers(DRILL, drills, folder), strict=True):
        text = tokenizer.decode(ledger.ids)
        asked = f"<|im_start|>user\n{each.replies[0].task.question}<|im_end|>\n"
        before, behind = text.split(asked)
        tables = [tool.description for tool in each.tools if tool.name == "sql"]
        assert before == "".join(f"<|im_start|>system\n{text}<|im_end|>\n" for text in tables)
        assert behind.startswith("<|im_start|>assistant\n")
        assert all(step.weight == 1 for step in each.replies[0].steps)


def test_tags_are_several_tokens_and_digits_stand_alone(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert len(tokenizer) == 600
    pieces = [tokenizer.decode([id]) for id in tokenizer.encode("4387</code>\n")]
    assert pieces == ["4", "3", "8", "7", "</", "code", ">\n"]
    for text in CONTROL:
        assert len(tokenizer.encode(text)) == 1
    assert tokenizer.eos_ids == {2}
