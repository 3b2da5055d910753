"""The policy that ships: it does what its card says, through the real engine."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from studies.nano.accuracy import Outcome, accuracy
from studies.nano.interventions import Row, interventions, table, wrong
from studies.nano.model_card import write_section
from studies.nano.score import Score, Shared, roll_out

from interlace.rollout.engines import nano
from interlace.rollout.engines.local.engine import TransformersEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools import ToolResult
from interlace.tools.errors import DataError
from interlace.tools.python import PythonTool
from interlace.train.data.task_tools import TaskTools

PROBLEMS = 60
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
    tags = {tag for name in nano.FORMATS for tag in FORMATS[name].control_tags}
    assert len(tags) > 20
    for tag in tags:
        assert len(engine.tokenizer.encode(tag)) >= 3, tag
    assert len(engine.tokenizer.encode("4387")) == 4


@pytest.mark.slow
def test_it_answers_at_least_95_percent_of_unseen_problems(engine: TransformersEngine) -> None:
    async def run() -> list[Outcome]:
        async with Shared(PythonTool(), sessions=6) as python, TaskTools(python) as world:
            return await accuracy(engine, world, problems=PROBLEMS, seed=23, splits=("test",))

    outcomes = asyncio.run(run())
    wrong: dict[tuple[str, str], int] = {}
    for each in outcomes:
        kind = (each.family, each.format)
        wrong[kind] = wrong.get(kind, 0) + (not each.right)
    assert len(wrong) == 6
    # 95 % or more of 300, says the card. Of 60, a policy that has 95 % gets 8 wrong once in 100.
    assert max(wrong.values()) <= 8, wrong
    assert sum(wrong.values()) <= 0.08 * len(outcomes), wrong


def test_it_computes_the_question_of_the_readme(engine: TransformersEngine) -> None:
    async def run() -> Episode:
        tool = PythonTool()
        return (await roll_out(engine, "retool", [CRATES], lambda task: [tool]))[0]

    episode = asyncio.run(run())
    assert episode.answer == "1298552"
    assert [call.output for call in episode.trajectory.calls] == ["1298552"]


@pytest.mark.slow
def test_its_answers_follow_the_tool(engine: TransformersEngine) -> None:
    async def run() -> list[Row]:
        async with Shared(PythonTool(), sessions=6) as python, TaskTools(python) as world:
            conditions = ("wrong results",)
            return await interventions(engine, world, problems=20, seed=29, conditions=conditions)

    rows = [row for row in asyncio.run(run()) if row.needs_tool]
    assert len(rows) == 6
    for row in rows:
        assert row.score.shown == 20
        # Where the other database stores the very unit of the question, it converts all the same:
        # more than half of these 20 databases are about units, of those of the card a quarter.
        # Of 20, a policy that follows 95 % of the time follows fewer than 16 once in 300.
        assert row.score.follows >= (12 if row.family == "database" else 16), row
        assert row.score.correct <= 2, row


def test_changed_results_differ_from_the_true_ones_and_repeat() -> None:
    for text in ("1298552", "7", "-12", "odd", "0"):
        changed = wrong({"code": "print(1)"}, ToolResult(text))
        assert changed.text != text and changed == wrong({"code": "print(1)"}, ToolResult(text))


def test_the_table_counts_what_was_shown() -> None:
    score = Score(problems=4, correct=3, shown=2, follows=1, calls=3, unanswered=0)
    text = table([Row("arithmetic", "retool", True, "wrong results", score, True)])
    last = "| arithmetic | retool | need a tool | wrong results | 75.0% | 50.0% of 2 | 0.75 |"
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
