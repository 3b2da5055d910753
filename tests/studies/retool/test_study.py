"""The comparison from end to end, so small that it takes a minute; and the mask, taken away."""

from dataclasses import replace
from pathlib import Path

import pytest
from studies.retool.make import make
from studies.retool.masking import forget_sources
from studies.retool.runs import Run, run_folder
from studies.retool.settings import Settings

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.tools.errors import DataError

TINY = Settings(
    seeds=(0, 1),
    unmasked_seeds=1,
    width=64,
    layers=2,
    drill_steps=10,
    demonstrations=200,
    target=0.0,
    look_every=10,
    choosing=20,
    steps=2,
    tokens=600,
    group=4,
    evaluate_every=1,
    testing=20,
    attempts=2,
)


@pytest.mark.slow
def test_a_run_ends_in_a_page_and_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    page = make(TINY, tmp_path).read_text()
    for heading in ("What was expected", "The starts", "The mask", "What this shows, and what not"):
        assert f"## {heading}" in page
    assert (tmp_path / "reproduce_retool" / "accuracy.png").stat().st_size > 1000
    runs = {(v, s): Run.read(run_folder(tmp_path, v, s)) for v, s in TINY.plan}
    for run in runs.values():
        assert run is not None and [point.step for point in run.points] == [0, 1, 2]
    # Killed in the middle of a run: that one is made anew, the others are kept.
    kept, lost = (run_folder(tmp_path, "tools", seed) / "run.json" for seed in (0, 1))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    make(TINY, tmp_path)
    assert lost.exists() and kept.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="other settings"):
        make(replace(TINY, rate=1.0), tmp_path)


def test_without_its_mask_a_trainer_takes_a_tools_words_for_the_policys() -> None:
    ledger = Ledger(
        [
            Span.given(Source.PROMPT, [1, 2]),
            Span.policy([3], logprobs=[-0.5], version=0),
            Span.given(Source.TOOL, [4, 5]),
            Span.policy([6], logprobs=[-0.25], version=0),
        ]
    )
    episode = Episode("a/0", Task("a", "?"), "a", 0, [Trajectory("tiny", "retool", [ledger])])
    forgotten = forget_sources(episode).trajectory.ledger
    assert ledger.response_mask.tolist() == [False, False, True, False, False, True]
    assert forgotten.response_mask.tolist() == [False, False, True, True, True, True]
    assert forgotten.ids.tolist() == ledger.ids.tolist()
