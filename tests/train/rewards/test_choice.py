"""Multiple choice: one option is named, in any usual spelling, or the answer is wrong."""

import csv
from pathlib import Path

import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError
from interlace.train.data.sources import find_tasks
from interlace.train.rewards import Checker, Unscored

OPTIONS = ["9 m", "12 m", "A wave of $\\lambda = 3$ m", "It does not move"]
TASK = Task("a", "How far?", "B", {"checker": "choice", "options": OPTIONS})
RIGHT = [
    "B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", "$B$", "\\boxed{B}", "\\boxed{\\text{B}}",
    "The answer is B", "The correct answer is (B).", "Answer: B", "answer is: **B**",
    "So it is \\boxed{(B)}.", "Option B", "B: 12 m", "(B) 12 m", "B. 12 m.",
    "The answer is B) 12 m", "12 m", "12  M.", "\\boxed{12 m}",
    "I choose B because a stone falls that far.",
    "B, so B it is",
]  # fmt: skip
WRONG = [
    "A", "(C)", "", "?", "B or C", "(A)(B)", "A, B", "A and B", "ABCD", "A B C D", "B. 9 m", "9 m",
    "(B) and (D)", "The answer is A or B", "not B", "The answer isn't B", "B is wrong", "Basalt",
    "\\boxed{A} and \\boxed{B}", "\\boxed{B}, no: \\boxed{C}", "12", "12 m or 9 m", "E", "option",
    "B " * 3_000, "All of A to D; B", "A vitamin",
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "right"), [(s, True) for s in RIGHT] + [(s, False) for s in WRONG]
)
def test_one_option_is_named_or_the_answer_is_wrong(said: str, right: bool) -> None:
    with Checker() as checker:
        assert checker.right(TASK, said) is right


def test_an_options_own_words_name_no_other_and_refuse_nothing() -> None:
    with Checker() as checker:
        wave = Task("w", "What?", "C", TASK.data)
        assert checker.right(wave, "C. A wave of $\\lambda = 3$ m")
        still = Task("s", "What?", "It does not move", TASK.data)
        assert checker.right(still, "D) It does not move") and checker.right(still, "D")
        assert not checker.right(still, "It does not move or 9 m")


def test_a_task_without_options_or_with_another_gold_answer_has_no_score() -> None:
    with Checker() as checker:
        for data, gold in (({}, "B"), ({"options": OPTIONS}, "F"), ({"options": ["x"]}, "A")):
            with pytest.raises(Unscored):
                checker.right(Task("a", "?", gold, {"checker": "choice", **data}), "B")


def test_gpqa_is_read_from_its_csv_with_options_in_a_fixed_random_order(tmp_path: Path) -> None:
    """The published file has the right option in the same column of each row."""
    wrong = [f"Incorrect Answer {number}" for number in (1, 2, 3)]
    file = tmp_path / "gpqa.csv"
    with file.open("w", newline="") as lines:
        rows = csv.DictWriter(lines, ["Record ID", "Question", "Correct Answer", *wrong])
        rows.writeheader()
        for n in range(40):
            options = dict(zip(wrong, ("cold,\nwet", "dry", "grey"), strict=True))
            rows.writerow({"Record ID": f"r{n}", "Question": f"Sky {n}?"} | options
                          | {"Correct Answer": "blue"})  # fmt: skip
    tasks = find_tasks(f"gpqa:{file}")
    assert tasks == find_tasks(f"gpqa:{file}")
    assert {task.answer for task in tasks} == set("ABCD")
    with Checker() as checker:
        for task in tasks:
            assert f"({task.answer}) blue" in task.question and "cold" in task.question
            assert [letter for letter in "ABCD" if checker.right(task, letter)] == [task.answer]
            assert checker.right(task, "blue") and not checker.right(task, "grey")
    file.write_text("Question,Correct Answer\nWhy?,so,extra\n")
    with pytest.raises(DataError, match="row 1 has more or fewer columns"):
        find_tasks(f"gpqa:{file}")
