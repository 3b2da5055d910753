"""Sets of tasks: every adapter on made rows of its shape, files, splits, overlaps."""

import importlib.util
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.rollout.task import Task
from interlace.tools.errors import DataError, UsageError
from interlace.train.data.benchmarks import BENCHMARKS
from interlace.train.data.public import ADAPTERS, columns
from interlace.train.data.task_sets import (
    adapt,
    contamination,
    deduplicate,
    load_hub,
    read_tasks,
    split,
    with_databases,
    write_tasks,
)
from interlace.train.rewards import Checker

DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
    'What is 1 + 1?\n\nRemember to put your answer on its own line after "Answer:".'
)
RETOOL = (
    "Solve the problem with code.\n*user question:*\nWhat is 1 + 1?\n\nRemember to place the final "
    "answer in the last part using the format: \n<answer>\n\\boxed{'The final answer'}\n</answer>"
)
TRACE = (
    "<code>\n```python\nprint('\\boxed{9}')\n```\n</code>\n<interpreter>\n\\boxed{9}\n"
    "</interpreter>\n<answer>\\boxed{2}</answer>"
)
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "question": "What is 1 + 1?",
        "answer": "One and one is <<1+1=2>>2.\nSo #2.\n#### 1,002",
    },
    "math": {
        "problem": "What is 1 + 1?",
        "solution": "$\\boxed{1}$? No: $\\boxed{\\frac{4}{2}}$.",
        "level": "Level 1",
        "type": "Algebra",
    },
    "dapo_math": {
        "data_source": "math_dapo",
        "prompt": [{"content": DAPO, "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": "2", "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a9b"},
    },
    "aime": {"ID": "2024-I-1", "Problem": "What is 1 + 1?", "Answer": 2, "Solution": "..."},
    "retool_sft": {
        "messages": [{"role": "user", "content": RETOOL}, {"role": "assistant", "content": TRACE}]
    },
    "spider": {"db_id": "shop", "question": "What is 1 + 1?", "query": "SELECT 1 + 1"},
    "bird": {
        "question_id": 7,
        "db_id": "shop",
        "question": "What is 1 + 1?",
        "evidence": "+ is a sign",
        "SQL": "SELECT 1 + 1",
        "difficulty": "simple",
    },
    "openthoughts": {
        "problem": "What is 1 + 1?",
        "ground_truth_solution": "It is $\\boxed{2}$.",
        "domain": "math",
    },
    "verl": {
        "data_source": "mine",
        "prompt": [{"content": "What is 1 + 1?", "role": "user"}],
        "reward_model": {"ground_truth": "2"},
        "extra_info": {"index": 5},
    },
    "nq": {"question": "What is 1 + 1?", "answer": ["2", "two"]},
    "hotpotqa": {
        "id": "5a7a",
        "question": "What is 1 + 1?",
        "answer": "two",
        "level": "easy",
        "context": {"title": ["a"], "sentences": [["b"]]},
    },
}
RIGHT = {"gsm8k": "1002", "aime": "002", "nq": "Two!", "hotpotqa": "two", "math": "\\frac42"}
IDS = {"verl": "5", "aime": "aime-2024-I-1", "bird": "bird-7", "hotpotqa": "open-5a7a"}


def test_every_adapter_has_a_row_here_or_a_test_beside_its_checker() -> None:
    assert ROWS.keys() | BENCHMARKS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_every_adapter_makes_a_task_that_checks_its_answer(name: str, tmp_path: Path) -> None:
    (task,) = adapt([ROWS[name]], name)
    assert task.question.splitlines()[0] == "What is 1 + 1?"
    assert "Remember" not in task.question
    assert task.id == IDS.get(name, task.id)
    answer = RIGHT.get(name, "2")
    sql = task.data.get("checker") == "sql"
    if sql:
        with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as db:
            db.execute("create table t (a)")
        (task,) = with_databases([task], tmp_path)
        answer = "select 2"
    elif task.data.get("checker") == "math" and importlib.util.find_spec("math_verify") is None:
        pytest.skip("needs interlace[train]")
    with Checker() as checker:
        assert checker.right(task, answer)
        assert not checker.right(task, "select 9" if sql else "9")
    assert json.loads(json.dumps(task.data)) == task.data


def test_parts_of_a_row_that_are_no_answer_are_kept_where_they_are_of_use() -> None:
    by_name = {name: adapt([row], name)[0] for name, row in ROWS.items()}
    assert by_name["gsm8k"].data["solution"].startswith("One and one is <<1+1=2>>2.")
    assert by_name["retool_sft"].data["demonstration"] == TRACE
    assert by_name["retool_sft"].question == "What is 1 + 1?"
    assert by_name["bird"].question.endswith("\nHint: + is a sign")
    assert by_name["math"].data["level"] == "Level 1"
    assert "context" not in by_name["hotpotqa"].data


def test_any_table_can_be_mapped() -> None:
    row = {"q": "How many?", "sql": "select 1", "db": "a.sqlite", "hard": True}
    adapter = columns("q", None, checker="sql", gold="sql", database="db")
    (task,) = adapt([row], adapter)
    assert (task.question, task.answer) == ("How many?", None)
    expected = {"hard": True, "gold": "select 1", "database": "a.sqlite", "checker": "sql"}
    assert task.data == expected


def test_a_row_of_another_shape_is_named() -> None:
    good = ROWS["gsm8k"]
    with pytest.raises(DataError, match="row 1 of train has another shape: there is no 'answer'"):
        adapt([good, {"question": "?"}], "gsm8k", name="train")
    with pytest.raises(DataError, match=r"row 0 .*no line that begins with ####"):
        adapt([{"question": "?", "answer": "7"}], "gsm8k")
    with pytest.raises(DataError, match=r"row 0 .*'problem' holds no text but None"):
        adapt([{"problem": None, "solution": "\\boxed{1}"}], "math")
    with pytest.raises(UsageError, match="unknown adapter 'gsm9k'; choose from gsm8k, math"):
        adapt([good], "gsm9k")


def test_repeated_rows_come_once_and_ids_do_not_depend_on_the_order() -> None:
    a = {"question": "What is 1 + 1?", "answer": "#### 2"}
    b = {"question": "What is 2 + 2?", "answer": "#### 4"}
    other = a | {"answer": "#### 3"}
    tasks = adapt([a, b, a, other], "gsm8k")
    assert [task.answer for task in tasks] == ["2", "4", "3"]
    assert tasks[2].id == f"{tasks[0].id}-2"
    assert [task.id for task in adapt([b, a], "gsm8k")] == [tasks[1].id, tasks[0].id]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)
TASKS = st.lists(
    st.builds(
        Task,
        TEXT.map(lambda text: f"id {text}"),
        TEXT.map(lambda text: f"Why {text}?"),
        st.none() | TEXT.filter(str.strip),
        st.dictionaries(TEXT.map(lambda text: f"key {text}"), JSON, max_size=3),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda task: task.id,
)


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.parquet"])
def test_what_is_written_is_read_again(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="needs interlace[parquet]")
    file = tmp_path_factory.mktemp("tasks") / name

    @settings(deadline=None, max_examples=50)
    @given(TASKS)
    def check(tasks: list[Task]) -> None:
        assert write_tasks(tasks, file) == len(tasks)
        assert read_tasks(str(file)) == tasks
        assert [path.name for path in file.parent.iterdir()] == [name]

    check()


def test_a_parquet_file_of_others_is_read_by_its_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs interlace[parquet]")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    parquet.write_table(
        pa.table({"question": ["a?", "b?"], "answer": [1, 2], "level": [3, 4]}), file
    )
    tasks = read_tasks(str(file))
    assert [(task.answer, task.data) for task in tasks] == [
        ("1", {"level": 3}),
        ("2", {"level": 4}),
    ]
    parquet.write_table(pa.table({"text": ["a"]}), file)
    with pytest.raises(DataError, match="row 1 is not a task"):
        read_tasks(str(file))
    file.write_bytes(b"PAR1 but torn")
    with pytest.raises(DataError, match=r"can't read .*a\.parquet"):
        read_tasks(str(file))


def test_only_line_feeds_end_a_line_and_half_a_character_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('{"question": "a\u2028b\x85c"}\r\n{"question": "d"}'.encode())
    assert [task.question for task in read_tasks(str(file))] == ["a\u2028b\x85c", "d"]
    file.write_text('{"question": "a"}\n{"question": "\\ud800"}\n')
    with pytest.raises(DataError, match="line 2 holds half of a character"):
        read_tasks(str(file))


@pytest.mark.parametrize("data", [{"answer": "2"}, {"a": {1, 2}}, {"a": (1, 2)}, {1: "a"}])
def test_data_that_would_not_come_back_is_refused(data: dict[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data of the task 'a'"):
        write_tasks([Task("a", "?", "1", data)], tmp_path / "a.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_data_set_is_loaded_by_the_hubs_own_library(tmp_path: Path) -> None:
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("needs interlace[hub]")
    folder = tmp_path / "made"
    folder.mkdir()
    rows = [ROWS["gsm8k"], ROWS["gsm8k"] | {"question": "What is 2 + 2?"}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = load_hub(str(folder), "gsm8k")
    assert [task.question for task in tasks] == ["What is 1 + 1?", "What is 2 + 2?"]
    assert len(load_hub(str(folder), "gsm8k", limit=1)) == 1
    with pytest.raises(DataError, match="can't be loaded"):
        load_hub(str(tmp_path / "nowhere"), "gsm8k")


# -- splits and overlaps -------------------------------------------------------------------------


def made(ids: Sequence[str]) -> list[Task]:
    return [Task(id, f"{id}?") for id in ids]


@settings(deadline=None)
@given(st.lists(st.text(), unique=True), st.floats(0, 1), st.data())
def test_a_split_depends_on_ids_alone(ids: list[str], share: float, data: st.DataObject) -> None:
    train, test = split(made(ids), share)
    assert {task.id for task in train} | {task.id for task in test} == set(ids)
    assert not {task.id for task in train} & {task.id for task in test}
    some = data.draw(st.permutations(ids))[: len(ids) // 2 + 1]
    assert {task.id for task in split(made(some), share)[1]} == {t.id for t in test} & set(some)


def test_a_split_has_about_the_share_asked_for_and_salt_changes_it() -> None:
    tasks = made([str(i) for i in range(2000)])
    test = {task.id for task in split(tasks, 0.1)[1]}
    other = {task.id for task in split(tasks, 0.1, salt="again")[1]}
    assert 150 < len(test) < 250 and 150 < len(other) < 250
    assert len(test & other) < 50
    # Fixed for good: a new version must not let trained tasks into the test set.
    assert sorted(test, key=int)[:5] == ["11", "15", "19", "24", "42"]


def test_duplicates_are_counted_and_those_that_disagree_are_named() -> None:
    tasks = [
        Task("a", "How many apples are 2 + 2?", "4"),
        Task("b", "how many  apples are 2+2", "4"),
        Task("c", "How many apples are 2 - 2?", "0"),
        Task("d", "How many apples are 2 + 2!", "5"),
        Task("e", "How many apples are x²?"),
        Task("f", "How many apples are x2?"),
    ]
    kept, found = deduplicate(tasks)
    assert [task.id for task in kept] == ["a", "c", "e", "f"]
    assert (found.dropped, found.disagreeing) == ({"b": "a", "d": "a"}, ("d",))
    assert str(found) == "2 questions stood there before, 1 of them with another answer"


def test_contamination_is_a_run_of_words_in_common() -> None:
    story = "A farmer has 12 cows and sells 5 of them to his neighbour on a rainy day"
    train = [Task("a", f"{story.upper()}. How many are left?"), Task("b", "What is 3 + 4?")]
    train.append(Task("c", "A farmer has 12 cows. How many legs do they have?"))
    test = [Task("x", f"Once, {story}; what remains?"), Task("y", "what is 3+4"), Task("z", "Why?")]
    found = contamination(train, test)
    assert found.pairs == (("a", "x"), ("b", "y"))
    assert found.training_ids == {"a", "b"} and found.test_ids == {"x", "y"}
    assert str(found) == "2 of 3 training questions share words with 2 of 3 test questions"
    assert ("c", "x") in contamination(train, test, n=5).pairs


@settings(deadline=None)
@given(st.lists(st.text("ab ", max_size=20), max_size=6), st.integers(1, 4))
def test_a_set_shares_words_with_itself(questions: list[str], n: int) -> None:
    tasks = [Task(str(i), f"{question} ?") for i, question in enumerate(questions)]
    found = contamination(tasks, tasks, n=n)
    assert {(task.id, task.id) for task in tasks} <= set(found.pairs)
    assert {pair[::-1] for pair in found.pairs} == set(found.pairs)
