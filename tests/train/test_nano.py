"""The policy that ships: it does what its card says, through the real engine."""

import asyncio
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from interlace.rollout.engines import nano
from interlace.rollout.engines.transformers import TransformersEngine
from interlace.rollout.task import Task
from interlace.tools import ErrorKind, ToolResult
from interlace.tools.errors import DataError
from interlace.tools.python import PythonTool
from interlace.train.generators import Arithmetic, check
from interlace.train.nano.card import write_section
from interlace.train.nano.evaluate import Changed, Score, Shared, roll_out
from interlace.train.nano.interventions import CONDITIONS, Row, table

CRATES = Task(
    "crates", "A crate holds 4387 bolts. How many bolts are in 296 crates?", "1298552", {}
)


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    torch.set_num_threads(2)
    engine = TransformersEngine.load(nano.path(), device="cpu")
    yield engine
    asyncio.run(engine.aclose())


def test_it_is_as_small_as_promised_and_has_no_pickle(engine: TransformersEngine) -> None:
    from safetensors import safe_open

    path = nano.path() / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert parameters <= 3_000_000
    assert sum(file.stat().st_size for file in nano.path().iterdir() if file.is_file()) <= 8_000_000
    config = json.loads((nano.path() / "config.json").read_text())
    assert config["model_type"] == "qwen3" and config["head_dim"] in (32, 64)
    assert config["vocab_size"] == len(engine.tokenizer)
    assert config["max_position_embeddings"] >= 2048


def test_its_tags_are_several_tokens(engine: TransformersEngine) -> None:
    tags = "<code> </code> <interpreter> </interpreter> <answer> </answer> <tool_call> </tool_call>"
    for tag in tags.split():
        assert len(engine.tokenizer.encode(tag)) >= 3, tag
    assert len(engine.tokenizer.encode("4387")) == 4


@pytest.mark.parametrize("format", ["retool", "hermes"])
def test_it_answers_problems_that_need_the_tool(engine: TransformersEngine, format: str) -> None:
    async def run() -> Score:
        async with Shared(PythonTool(), sessions=6) as tool:
            tasks = [CRATES, *islice(Arithmetic(23, "test", needs_tool=True), 39)]
            episodes = await roll_out(engine, format, [tool], tasks)
        assert episodes[0].answer == "1298552"
        assert [call.output for call in episodes[0].trajectory.calls] == ["1298552"]
        return Score.of(episodes)

    score = asyncio.run(run())
    # 97 to 98 % of 500, says the card: of 40, this allows for the luck of the draw.
    assert score.accuracy >= 0.9, score


def test_it_seldom_calls_where_no_tool_is_needed(engine: TransformersEngine) -> None:
    async def run() -> Score:
        async with Shared(PythonTool(), sessions=6) as tool:
            tasks = list(islice(Arithmetic(23, "test", needs_tool=False), 30))
            episodes = await roll_out(engine, "retool", [tool], tasks)
        assert sum(bool(e.trajectory.calls) for e in episodes) < len(episodes) / 2
        return Score.of(episodes)

    # 65 % of 500, says the card: it compares and reads off worse than it calls.
    assert asyncio.run(run()).accuracy >= 0.4


def test_its_answers_follow_the_tool(engine: TransformersEngine) -> None:
    async def run() -> Score:
        async with Shared(PythonTool(), sessions=6) as tool:
            tasks = list(islice(Arithmetic(29, "test", needs_tool=True), 20))
            wrong = Changed(tool, CONDITIONS["wrong results"] or (lambda code, result: result))
            return Score.of(await roll_out(engine, "retool", [wrong], tasks))

    score = asyncio.run(run())
    assert score.shown == 20
    assert score.follows >= 19 and score.correct <= 1


def test_changed_results_differ_from_the_true_ones_and_repeat() -> None:
    wrong = CONDITIONS["wrong results"]
    assert wrong is not None
    for text in ("1298552", "7", "-12", "odd", "0"):
        changed = wrong("print(1)", ToolResult(text))
        assert changed.text != text and changed == wrong("print(1)", ToolResult(text))
    error = CONDITIONS["an error"]
    assert error is not None and error("1", ToolResult("1")).error is ErrorKind.EXCEPTION


def test_the_table_counts_what_was_shown() -> None:
    score = Score(problems=4, correct=3, shown=2, follows=1, calls=3, unanswered=0)
    text = table([Row("retool", True, "wrong results", score)])
    last = "| retool | need a tool | wrong results | 75.0% | 50.0% of 2 | 0.75 |"
    assert text.splitlines()[-1] == last


def test_a_section_of_the_card_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    write_section(card, "x", r"new \1")
    write_section(card, "x", r"newer \1")
    assert card.read_text() == "a\n<!-- x -->\nnewer \\1\n<!-- /x -->\nb\n"
    with pytest.raises(DataError, match="no section"):
        write_section(card, "y", "z")


def test_the_card_holds_measured_tables() -> None:
    card = (nano.path() / "README.md").read_text()
    for section in ("training", "accuracy", "interventions"):
        between = card.split(f"<!-- {section} -->")[1].split(f"<!-- /{section} -->")[0]
        assert any(character.isdigit() for character in between), section


def test_check_is_for_numbers_of_any_writing() -> None:
    assert check(CRATES, "1,298,552") and not check(CRATES, "1298553")
