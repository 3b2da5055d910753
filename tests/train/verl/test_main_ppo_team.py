"""verl's own trainer, two steps on a CPU, with a team: for `make test-verl`."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
from support.verl_run import check_steps, main_ppo, run

for package in ("verl", "langgraph"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


def test_two_steps_of_a_team(tmp_path: Path) -> None:
    """The nano policy plays every role; a call of each is a row, compared with those of its place.
    That it is compared as the local trainer does: test_verl_team.py.
    """
    more = {"VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform"}
    ran = run(tmp_path, main_ppo(tmp_path, "team", "arithmetic"), more)
    trained = [row for row in ran.rows if row["kind"] == "train"]
    episodes = [each for each in ran.episodes if "-train-" in each.task.id]  # no validation
    calls = [
        trajectory
        for episode in episodes
        for trajectory in episode.trajectories
        if trajectory.ledger.loss_weights.any()
    ]
    check_steps(ran, rows=len(calls))
    assert len(trained) >= 3 * len(episodes)
    places = Counter(row["uid"].split("#")[1] for row in trained)
    told = [call.speaker for call in calls]
    assert places == Counter(f"{t.round}.{t.role}.{t.turn}" for t in told)
    assert {"0.ceo.0", "0.recruiter.0", "0.solver.0", "0.critic.0", "0.evaluator.0"} <= set(places)
    assert len({row["uid"] for row in trained}) == len(trained)
    assert ran.metrics[1]["critic/advantages/max"] > 0 > ran.metrics[1]["critic/advantages/min"]
