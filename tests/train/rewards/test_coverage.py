"""Word coverage: inflected forms count, look-alikes and lists do not."""

import json
from pathlib import Path

import pytest

from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.train.data.sources import find_tasks
from interlace.train.rewards import REWARDS, Checker, Unscored
from interlace.train.rewards.coverage import covered

pytest.importorskip("lemminflect", reason="needs interlace[words]")

TASK = Task(
    "c", "?", None, {"checker": "coverage", "concepts": ["mouse", "run", "big", "well-known"]}
)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Two mice ran from the biggest, best known cat.", 1.0),
        ("A MOUSE is running to a well; how big!", 1.0),
        ("Mouses run", 0.25),  # not a form of it
        ("The mouse sleeps.", 0.25),
        ("A mousetrap, a runway and bigotry.", 0.0),  # words in words
        ("mouserunbig wellknown", 0.0),
        ("mouse run big well-known", 0.0),  # a list
        ("mice, ran, bigger, known", 0.0),
        ("", 0.0),
        ("mouse " + "the " * 10_000, 0.0),
    ],
)
def test_the_share_of_concepts_in_any_form(text: str, share: float) -> None:
    with Checker() as checker:
        assert covered(TASK, text) == pytest.approx(share)
        assert checker.right(TASK, text) is (share == 1.0)
        assert checker.coverage(Episode("c/0", TASK, "c", 0), TASK) == 0.0  # no answer


def test_a_task_without_concepts_has_no_score() -> None:
    with Checker() as checker:
        for concepts in (None, [], ["..."], "mouse"):
            with pytest.raises(Unscored):
                checker.right(Task("c", "?", None, TASK.data | {"concepts": concepts}), "A mouse.")


def test_commongens_rows_are_one_task_for_each_set_of_concepts(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"concept_set_idx": 0, "concepts": ["net", "fish"], "target": "A net of fish."},
        {"concept_set_idx": 0, "concepts": ["net", "fish"], "target": "Fish in nets."},
        {"concept_set": "boat#row_V", "scene": ["She rows a boat."]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = find_tasks(f"commongen:{file}")
    assert [task.data["concepts"] for task in tasks] == [["net", "fish"], ["boat", "row"]]
    assert "net, fish" in tasks[0].question and "A net of fish" not in str(tasks[0])
    with Checker() as checker:
        assert checker.right(tasks[1], "She rowed two boats.")
        assert "coverage" in [part.name for part in REWARDS["commongen"](checker, None).parts]  # type: ignore[arg-type]
