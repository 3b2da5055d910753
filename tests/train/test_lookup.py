"""Questions over made-up corpora: what each search finds leads to the next one."""

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from interlace.rollout.task import Task
from interlace.rollout.task_files import read_tasks
from interlace.tools.search import SearchTool
from interlace.train.data.generators.__main__ import main
from interlace.train.data.generators.endless import SPLITS
from interlace.train.data.generators.lookup import (
    HELD_OUT,
    LEVELS,
    Lookups,
    check,
    passages,
    twin,
    write_corpus,
)


def draw(number: int, **settings: object) -> list[Task]:
    source = Lookups(**({"seed": 7} | settings))  # type: ignore[arg-type]
    return list(itertools.islice(source, number))


def test_every_search_finds_the_next_thing_and_the_last_one_the_answer(tmp_path: Path) -> None:
    async def go() -> None:
        tool = None
        for task in draw(25, levels=(1, 2)):  # all on one corpus
            if tool is None:
                file = write_corpus(task.data["corpus"], tmp_path / "corpus.jsonl")
                tool = SearchTool(file, index=tmp_path / "index")
            for query, fact in zip(task.data["steps"], task.data["facts"], strict=True):
                assert query in task.question or query in task.data["facts"]
                result = await tool.run(query, 60.0)
                assert fact in result.text.split("Doc 2")[0], result.text
            assert check(task, task.data["facts"][-1])
            assert len(task.data["steps"]) == task.data["level"]

    asyncio.run(go())


def test_nobody_can_know_the_answer_without_searching() -> None:
    """The same question has another answer over a corpus with the same names."""
    for task in draw(100, levels=(1, 2)):
        other = twin(task)
        assert other.question == task.question
        assert all(a != b for a, b in zip(other.data["facts"], task.data["facts"], strict=True))
        assert not check(other, task.answer) and not check(task, other.answer)
        assert str(task.answer) not in task.question


def test_a_question_of_level_0_says_what_it_asks_for() -> None:
    for task in draw(40, levels=(0,)):
        assert not task.data["needs_tool"] and not task.data["steps"]
        assert str(task.answer) in task.question
        assert twin(task).answer == task.answer


def test_held_out_questions_combine_hops_as_no_training_question_does() -> None:
    def chains(split: str) -> set[tuple[str, ...]]:
        return {tuple(task.data["relations"]) for task in draw(300, split=split, levels=(2,))}

    assert chains("held_out") == HELD_OUT
    assert chains("train") == chains("test") and not chains("train") & HELD_OUT


def test_corpora_of_different_splits_share_no_names() -> None:
    def names(split: str) -> set[str]:
        tasks = draw(100, split=split)
        corpora = {str(task.data["corpus"]): task.data["corpus"] for task in tasks}
        return {each.title for corpus in corpora.values() for each in passages(corpus)}

    trained, tested = names("train"), names("test")
    assert len(trained & tested) < len(tested) / 20  # two draws may give the same short word


def test_tasks_follow_from_their_seed_alone() -> None:
    for split in SPLITS:
        first, again = draw(30, split=split), draw(30, split=split)
        assert [asdict(task) for task in first] == [asdict(task) for task in again]
        assert first[17] == Lookups(seed=7, split=split)[17]
        assert first[0] != draw(1, split=split, seed=8)[0]
        stored = Task(**json.loads(json.dumps(asdict(first[0]))))
        assert passages(stored.data["corpus"]) == passages(first[0].data["corpus"])


def test_levels_and_splits_are_checked() -> None:
    for level in LEVELS:
        assert {task.data["level"] for task in draw(20, levels=(level,))} == {level}
    with pytest.raises(ValueError, match="levels"):
        Lookups(seed=1, levels=(3,))
    with pytest.raises(ValueError, match="split"):
        Lookups(seed=1, split="dev")


def test_tasks_and_what_they_are_about_can_be_written_for_a_trial_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def written() -> list[Task]:
        (tmp_path / "tasks.jsonl").write_text(capsys.readouterr().out)
        return read_tasks(str(tmp_path / "tasks.jsonl"))

    main(["lookup", str(tmp_path / "corpus.jsonl"), "--tasks", "5"])
    tasks = written()
    corpus = (tmp_path / "corpus.jsonl").read_text()
    assert len(tasks) == 5
    assert all(fact in corpus for task in tasks for fact in task.data["facts"])
    main(["database", str(tmp_path / "a.db"), "--tasks", "5"])
    tasks = written()
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        for task in tasks:
            assert str(database.execute(task.data["gold"]).fetchone()[0]) == task.answer
    with pytest.raises(SystemExit):
        main(["database", str(tmp_path / "a.db")])
    assert "is there already" in capsys.readouterr().err
