"""Evaluations: what counts as right, what counts at all, and how tools were used."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.attempts import TOKENIZER, attempt
from support.fakes import answer, code

from interlace.agent.cli.render.evaluation_tables import percent, print_modes, reasons
from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError, UsageError
from interlace.train.data.sources import find_tasks
from interlace.train.evaluation.attempts import Attempt
from interlace.train.evaluation.compare import compare
from interlace.train.evaluation.plots import plot_evaluations
from interlace.train.evaluation.results import (
    Evaluation,
    load_evaluation,
    measure,
    save_evaluation,
)
from interlace.train.rewards import Checker

TASK = Task("a", "What is 3 * 4?", "12")
CHECKER = Checker()


def sampled(*replies: str, task: Task = TASK) -> list[Episode]:
    """One episode for each reply, as attempts at one task."""
    made = [attempt(task, reply) for reply in replies]
    return [
        replace(episode, id=f"{task.id}/{number}", sample=number)
        for number, episode in enumerate(made)
    ]


def test_figures_of_four_attempts_by_hand() -> None:
    episodes = sampled(answer("7"), answer("12"), answer("12.0"), "I don't know.")
    found = measure(episodes, CHECKER)
    assert found.accuracy.value == 0.5
    assert {k: round(e.value, 4) for k, e in found.pass_at.items()} == {1: 0.5, 2: 0.8333, 4: 1.0}
    # Of the six pairs only (7, nothing) is wrong: of 7 and 12 the model is surer of 12.
    assert found.attempts[0].logprob < found.attempts[1].logprob  # type: ignore[operator]
    assert {k: e.value for k, e in found.majority_at.items()} == {
        1: 0.5,
        2: pytest.approx(5 / 6),
        4: 1.0,
    }
    assert [each.vote for each in found.attempts] == [0, 1, 1, None]


def test_what_failed_on_our_side_is_in_no_figure_and_is_told() -> None:
    failed = attempt(TASK, code("bug"))
    nobody_knows = attempt(Task("b", "What is love?"), answer("12"))
    found = measure([*sampled(answer("12"))[:1], replace(failed, id="a/9")], CHECKER)
    assert found.accuracy.value == 1
    assert len(found.attempts) == 1 and "RuntimeError: a bug in the tool" in str(found.unjudged)
    with pytest.raises(DataError, match="nothing to measure"):
        _ = measure([nobody_knows], CHECKER).accuracy


def test_an_episode_that_was_run_again_counts_once() -> None:
    found = measure([*sampled(answer("7")), *sampled(answer("12"))], CHECKER)
    assert len(found.attempts) == 1 and found.accuracy.value == 1


def test_how_code_was_used() -> None:
    lead = "First I look."
    put_right = attempt(TASK, f"{lead}{code('fail')}", code("say 1\n\nsay 2"), answer("12"))
    never = attempt(Task("b", "3?", "3"), answer("3"))
    wrong = attempt(Task("c", "5?", "5"), code("fail"), answer("6"))
    found = measure([put_right, never, wrong], CHECKER, tokenizer=TOKENIZER)
    behaviour = found.behaviour()
    assert behaviour["code_ratio"] == pytest.approx(2 / 3)
    assert behaviour["codes"] == 3 and behaviour["correct_codes"] == 1
    assert behaviour["code_lines"] == pytest.approx((1 + 2 + 0 + 1) / 3)
    assert behaviour["last_code_passes_when_right"] == 1
    assert behaviour["last_code_passes_when_wrong"] == 0
    assert behaviour["responses_with_errors"] == 2
    assert behaviour["self_correction_ratio"] == 0.5
    assert behaviour["right_after_self_correction"] == 1
    assert found.tool_error_rate == pytest.approx(2 / 3)
    response = len(put_right.trajectory.ledger) - put_right.trajectory.ledger.prompt_length
    before = len(TOKENIZER.encode(lead))
    assert found.attempts[0].first_call == pytest.approx(before / response)
    assert found.attempts[2].first_call == 0


def made(right: dict[str, bool], tokens: int = 10) -> Evaluation:
    return Evaluation([Attempt(t, 0, ok, "answered", tokens=tokens) for t, ok in right.items()])


def test_comparing_pairs_the_tasks() -> None:
    first = made({"a": True, "b": False, "c": False, "d": False, "x": True})
    second = made({"a": True, "b": True, "c": True, "d": False, "y": True}, tokens=4)
    found = compare(first, second)
    assert found.table == (1, 0, 2, 1) and found.tasks == 4 and found.left_out == 2
    assert found.p == 0.5 and found.test == "McNemar, exact"
    assert (found.first, found.second) == (0.25, 0.75)
    assert found.accuracy.value == 0.5 and found.accuracy.low < 0 < found.accuracy.high < 1
    assert found.means["tokens"].value == -6 and found.to_json()["means"]["tokens"]["low"] is None
    assert "only 4 tasks: they say little" in found.remarks
    with pytest.raises(DataError, match="no task in common"):
        compare(made({"a": True}), made({"b": True}))


def test_with_several_attempts_the_means_of_tasks_are_compared() -> None:
    def twice(task: str, *right: bool) -> list[Attempt]:
        return [Attempt(task, i, ok, "answered") for i, ok in enumerate(right)]

    first = Evaluation([*twice("a", True, False), *twice("b", False, False)])
    second = Evaluation([*twice("a", True, True), *twice("b", True, False)])
    found = compare(first, second)
    assert found.table is None and found.accuracy.value == 0.5
    assert found.p == pytest.approx(0.5, abs=0.03)  # two signs of four are as extreme


def test_an_evaluation_comes_back_from_its_file_and_from_its_log(tmp_path: Path) -> None:
    episodes = sampled(answer("12"), answer("7"))
    found = measure(episodes, CHECKER, run={"model": "scripted"})
    save_evaluation(found, tmp_path / "results.json")
    assert load_evaluation(tmp_path) == found
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        for episode in episodes:
            log.append(episode)
    from_log = load_evaluation(tmp_path / "log.jsonl", CHECKER)
    assert from_log.attempts == found.attempts
    (tmp_path / "results.json").write_text('{"attempts": [{"task": 1}]}')
    with pytest.raises(DataError, match="is not an evaluation"):
        load_evaluation(tmp_path)


def test_pictures_are_drawn_without_a_display(tmp_path: Path) -> None:
    found = measure(sampled(answer("12"), answer("7")), CHECKER)
    names = [r"b$\frac{$", "$x_1$", "_hidden", "far/" * 60, "far/" * 61, "日本語", "two\nlines"]
    runs = {name: made({"a": True}) for name in names}
    plot_evaluations({"before": found, **runs}, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    plot_evaluations(runs, tmp_path / "p.SVG")
    drawn = (tmp_path / "p.SVG").read_text()
    assert "<svg" in drawn
    for label in (r"b$\frac{$", "$x_1$", "_hidden", "run 5", "run 6", "two lines"):
        assert label in drawn
    with pytest.raises(UsageError, match="its ending should be png, svg, pdf"):
        plot_evaluations(runs, tmp_path / "p.jpeg")


def test_each_run_of_a_picture_has_a_label_of_its_own(tmp_path: Path) -> None:
    runs = {name: made({"a": True}) for name in ("run 2", "日本語", "run 3", "a\tb", "a b", "")}
    plot_evaluations(runs, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    for label in ("run 2", "run 4", "run 3", "a b", "run 5", "run 6"):
        assert f"<!-- {label} -->" in drawn


def test_tasks_by_name(tmp_path: Path) -> None:
    assert [task.id for task in find_tasks("arithmetic:held_out:3:7")] == [
        f"arithmetic-held_out-7-{i}" for i in range(3)
    ]
    assert len(find_tasks("lookup", limit=5)) == 5
    assert find_tasks("database:test:2")[0].data["database"]
    row = '{"question": "2 + 2?", "answer": "It is <<2+2=4>>4.\\n#### 4"}\n'
    (tmp_path / "g.jsonl").write_text(row)
    (task,) = find_tasks(f"gsm8k:{tmp_path / 'g.jsonl'}")
    assert task.answer == "4" and task.data["checker"] == "math"
    for wrong in (
        "arithmetic:tset",
        "lookup:test:many",
        "database:test:1:2:3",
        "arithmetic:test:0",
    ):
        with pytest.raises(UsageError, match="names no tasks"):
            find_tasks(wrong)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_figure_depends_on_the_order_and_pass_at_k_never_falls(data: st.DataObject) -> None:
    """With any number of attempts at each task, some without an answer, a clock or a certainty."""
    attempts = []
    for task in "abcd"[: data.draw(st.integers(1, 4))]:
        for sample in range(data.draw(st.integers(1, 12))):
            said = data.draw(st.sampled_from([0, 1, 2, None]))
            sure = data.draw(st.sampled_from([None, -1.0, -0.5]))
            spent = data.draw(st.sampled_from([None, 1.5]))
            attempts.append(
                Attempt(
                    task,
                    sample,
                    said == 0,
                    "answered",
                    answer=None if said is None else str(said),
                    vote=said,
                    logprob=sure,
                    seconds=spent,
                )
            )
    found = Evaluation(attempts)
    order = data.draw(st.permutations(range(len(attempts))))
    by_task = {t: iter(sorted(a.sample for a in attempts if a.task == t)) for t in "abcd"}
    mixed = [attempts[i] for i in order]
    again = Evaluation([replace(a, sample=next(by_task[a.task])) for a in mixed])
    assert repr(again.pass_at) == repr(found.pass_at)
    assert {k: e.value for k, e in again.majority_at.items()} == {
        k: pytest.approx(e.value) for k, e in found.majority_at.items()
    }
    values = [estimate.value for estimate in found.pass_at.values()]
    assert values == sorted(values)
    text = json.dumps(found.summary(), allow_nan=False)
    assert json.loads(text)["tasks_at"] == {str(k): n for k, n in found.tasks_at.items()}


def test_what_could_not_be_timed_is_null_in_the_results(tmp_path: Path) -> None:
    (episode,) = sampled(answer("12"))
    found = measure([replace(episode, seconds=math.nan)], CHECKER)
    save_evaluation(found, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert written["attempts"][0]["seconds"] is None
    assert written["summary"]["means"]["seconds"]["value"] is None
    assert load_evaluation(tmp_path) == found
    assert compare(found, found).to_json()["means"]["seconds"]["value"] is None
    shown = StringIO()
    print_modes(Console(file=shown, width=120), {"greedy": found})
    assert "greedy" in shown.getvalue() and "nan" not in shown.getvalue()


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100.0%"), (0, "0.0%"), (2999 / 3000, "99.97%"), (1 / 30_000, "0.003%"), (0.5, "50.0%")],
)
def test_no_share_is_rounded_to_all_or_nothing(share: float, text: str) -> None:
    assert percent(share) == text and percent(-share, "+").strip("+-") == text


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_majority_does_not_depend_on_the_order_and_equals_share_it(order: Sequence[int]) -> None:
    told = [(True, 0), (False, 1), (False, 2)]
    attempts = [
        Attempt("a", place, told[which][0], "answered", answer=str(which), vote=told[which][1])
        for place, which in enumerate(order)
    ]
    found = Evaluation(attempts)
    assert found.majority_at[2].value == pytest.approx(1 / 3)  # half of two pairs, none of one
    assert found.majority_at[3].value == pytest.approx(1 / 3)
    uneven = Evaluation([*attempts, Attempt("b", 0, True, "answered", answer="1", vote=0)])
    assert uneven.tasks_at == {1: 1, 2: 1, 3: 1}


def test_reasons_why_nothing_was_judged_are_few_lines() -> None:
    unjudged = {f"nobody knows the answer of the task '{n}'": 1 for n in range(400)}
    assert reasons({**unjudged, "a tool failed": 2})[0] == ("a tool failed", 2)
    assert reasons(unjudged)[-1] == ("395 other reasons", 395)
    assert len(reasons({"a": 1, "b": 2, "c": 1, "d": 1, "e": 1, "f": 1})) == 6
