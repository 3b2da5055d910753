"""A run with its real tool, whose processes are killed under it."""

import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from support.fakes import answer, code
from support.sandbox_fixtures import below
from support.toy_training import settings, setup

from interlace.rollout.engines import Request, ScriptedEngine
from interlace.rollout.episode_log import read_episodes
from interlace.rollout.policy import Policy
from interlace.tools import ErrorKind, PythonTool
from interlace.train.local.record import Record, read_metrics
from interlace.train.local.rl import Trainer
from interlace.train.rewards import RewardPart, Rewards


def interpreters() -> list[int]:
    """The sandbox processes that this process, or one of them, has started."""
    return [pid for pid, command in below().items() if "_interlace" in command]


def test_a_run_goes_on_when_its_interpreters_are_killed(tmp_path: Path) -> None:
    """Each answer is the last line that the tool has said. After a kill an episode reads that its
    process died and answers so, or it is left out; where neither is the case, it is right.
    """
    config = settings(tmp_path / "run", steps=2, deterministic=False, concurrency=4)
    killed: dict[int, list[int]] = {}

    with setup(config) as made, Record(tmp_path / "run") as record:
        tokenizer = made.policy.engine.tokenizer

        def script(request: Request) -> str:
            said = re.search(
                r"<interpreter>\n(.*)\n</interpreter>", tokenizer.decode(request.ids), re.DOTALL
            )
            if said is None:
                return code("6 * 7")
            step = trainer.done + 1
            if step not in killed:  # while the sessions of this episode and of others live
                killed[step] = interpreters()
                for process in killed[step]:
                    with suppress(ProcessLookupError):  # it ended with its parent
                        os.kill(process, signal.SIGKILL)
            return answer(said[1].splitlines()[-1])

        limits = replace(made.policy.limits, max_tokens=400, call_timeout=60.0)
        engine = ScriptedEngine(tokenizer, script, delay=0.01)
        policy = Policy(engine, made.policy.format, [PythonTool()], limits=limits)
        right = Rewards(RewardPart("correct", lambda episode, task: float(episode.answer == "42")))
        trainer = Trainer(config, replace(made, policy=policy, rewards=right))
        trainer.train(record)
    assert set(killed) == {1, 2} and all(killed.values())
    assert [metrics["step"] for metrics in read_metrics(tmp_path / "run")] == [1, 2]
    for step in (1, 2):
        episodes = list(read_episodes(tmp_path / "run" / "episodes" / f"{step:05}.jsonl"))
        assert len(episodes) == 8
        for episode in episodes:
            errors = {call.error for call in episode.trajectory.calls}
            if not episode.rewards:
                assert episode.error
            elif errors == {None}:
                assert episode.rewards["correct"] == 1
            else:
                assert errors <= {None, ErrorKind.DIED}
        assert any(episode.rewards.get("correct") == 1 for episode in episodes)
