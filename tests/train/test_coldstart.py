"""Demonstrations: really run, honest about failures, and trainable exactly where they should be."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from interlace.rollout.formats import FORMATS, Encoder
from interlace.rollout.ledger import Source
from interlace.rollout.task import equal_answers
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Finish
from interlace.tools.python import PythonTool
from interlace.train.coldstart import Demonstration, Reply
from interlace.train.nano.data import DRILL, FULL, demonstrations, ledgers, texts
from interlace.train.nano.tokenizer import CONTROL, build_tokenizer


@pytest.fixture(scope="module")
def made() -> list[Demonstration]:
    return asyncio.run(demonstrations(FULL, 60, 3, PythonTool()))


@pytest.fixture(scope="module")
def folder(made: list[Demonstration], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(texts(made, PythonTool()), 600, path)
    return path


def replies(made: list[Demonstration]) -> list[Reply]:
    return [reply for each in made for reply in each.replies]


def test_the_same_seed_makes_the_same_demonstrations(made: list[Demonstration]) -> None:
    assert asyncio.run(demonstrations(FULL, 5, 3, PythonTool())) == made[:5]


def test_outputs_are_those_of_the_code_when_it_is_run_again(made: list[Demonstration]) -> None:
    async def run() -> int:
        compared = 0
        for reply in replies(made)[:25]:
            if reply.altered:
                continue
            async with tool.session() as session:
                for step in reply.steps:
                    if step.call is not None:
                        code = (step.call.arguments or {})["code"]
                        again = await session.call({"code": code}, 10.0)
                        # The cell's number in a traceback counts the calls of the session.
                        assert again.text.splitlines()[-1] == step.call.output.splitlines()[-1]
                        assert again.error == step.call.error
                        compared += 1
        return compared

    tool = PythonTool(warm=2)
    assert asyncio.run(run()) > 8


def test_an_answer_is_the_right_one_or_follows_the_altered_result(
    made: list[Demonstration],
) -> None:
    altered = 0
    for each in made:
        for reply in each.replies:
            parsed = FORMATS[each.format].parse(reply.steps[-1].text, Finish.EOS, ())
            assert parsed.answer is not None
            shown = [step.call.output for step in reply.steps if step.call is not None]
            if reply.altered and reply.steps[-2].call is not None and shown[-1][-1:].isalnum():
                outage = reply.steps[-2].call.error is not None
                expected = reply.task.answer if outage else shown[-1]
                altered += not outage
            else:
                expected = reply.task.answer
            assert equal_answers(parsed.answer, expected or "")
    assert altered > 20


def test_failed_attempts_are_shown_but_not_learnt(made: list[Demonstration], folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    failed = 0
    for each, ledger in zip(made, ledgers(FULL, made, folder, PythonTool()), strict=True):
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
                finish = Finish.STOP if step.call and format.inline else Finish.EOS
                parsed = format.parse(step.text, finish, (PythonTool(),))
                meant = [step.call.arguments] if step.call else []
                assert [call.arguments for call in parsed.calls] == meant
                assert parsed.complete and not parsed.forged


def test_a_ledger_begins_as_the_prompt_of_the_same_question_does(
    made: list[Demonstration], folder: Path
) -> None:
    tokenizer, tool = Tokenizer.load(folder), PythonTool()
    made_of_all_kinds = {(each.format, each.with_tool) for each in made}
    assert len(made_of_all_kinds) == 4
    for each, ledger in zip(made, ledgers(FULL, made, folder, tool), strict=True):
        tools = (tool,) if each.with_tool else ()
        encoder = Encoder(FORMATS[each.format], tokenizer, tools)
        prompt = encoder.prompt(each.replies[0].task.question)
        assert ledger.spans[: len(prompt)] == tuple(prompt)
        assert np.array_equal(tokenizer.encode(tokenizer.decode(prompt[0].ids)), prompt[0].ids)


def test_a_drill_is_the_same_without_the_system_prompt(folder: Path) -> None:
    tokenizer, tool = Tokenizer.load(folder), PythonTool()
    drills = asyncio.run(demonstrations(DRILL, 4, 3, tool))
    for each, ledger in zip(drills, ledgers(DRILL, drills, folder, tool), strict=True):
        text = tokenizer.decode(ledger.ids)
        question = each.replies[0].task.question
        assert text.startswith(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        assert all(step.weight == 1 for step in each.replies[0].steps)


def test_tags_are_several_tokens_and_digits_stand_alone(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert len(tokenizer) == 600
    pieces = [tokenizer.decode([id]) for id in tokenizer.encode("4387</code>\n")]
    assert pieces == ["4", "3", "8", "7", "</", "code", ">\n"]
    for text in CONTROL:
        assert len(tokenizer.encode(text)) == 1
    assert tokenizer.eos_ids == {2}
