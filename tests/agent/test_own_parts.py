"""Parts of one's own, named on the command line: what they do, and who may not name them."""

import json
import os
import sys
from pathlib import Path

import pytest
from support import warm

from interlace.rollout.episode_log import read_episodes

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]

MINE = '''
import asyncio
from dataclasses import replace

from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.many.strategies import Decision
from interlace.rollout.models.files import find_model
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer

open(__file__ + ".ran", "w").close()


def says(text: str, *, times: int = 1) -> ScriptedEngine:
    """An engine that always gives the same answer."""
    tokenizer = Tokenizer.load(find_model("nano"))
    return ScriptedEngine(tokenizer, lambda request: f"<answer>{text * times}</answer>")


def nothing():
    return object()


def unread():
    engine = says("7")
    engine.tokenizer = engine.tokenizer.decode
    return engine


def fails(row):
    return 1 / 0


class Gone:
    def __init__(self):
        self.name, self.context_length = "gone", 512
        self.tokenizer = Tokenizer.load(find_model("nano"))

    async def generate(self, request):
        raise RuntimeError("nobody is here")
        yield

    async def release(self, context): ...
    async def aclose(self): ...


async def shortest(ask, task, *, rounds: int = 2):
    episodes = [await ask(task.question) for _ in range(rounds)]
    return Decision(min(episodes, key=lambda one: len(one.answer or "")), {"rounds": rounds})
'''


def interlace(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command in a folder."""
    settings = os.environ | {
        "NO_COLOR": "1",
        "OMP_NUM_THREADS": "1",
        "XDG_DATA_HOME": str(folder / "data"),
    }
    command = [*COMMAND, *arguments]
    done = warm.run(
        command, capture_output=True, env=settings, cwd=folder, input="What?\n", timeout=240
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "tasks.jsonl").write_text(
        "".join(f'{{"id": "{n}", "question": "{n}?", "answer": "77"}}\n' for n in range(3))
    )
    return tmp_path


ENGINE = ("--model", "mine.py:says:7@times=2", "--format", "retool")
"""An engine that works on a text, a number here."""


def test_an_engine_of_ones_own_answers_a_question_and_is_measured(here: Path) -> None:
    code, out, err = interlace(here, "run", *ENGINE, "--tool", "none", "What?", "--quiet")
    assert (code, out) == (0, "77\n"), err
    strategy = ("--strategy", "mine:shortest@rounds=3")
    code, out, err = interlace(
        here, "eval", "tasks.jsonl", *ENGINE, *strategy, "--tool", "none", "--json", "--out", "runs"
    )
    assert code == 0, err
    assert json.loads(out)["accuracy"]["value"] == 1.0
    episodes = list(read_episodes(here / "runs" / "episodes.jsonl"))
    assert {len(episode.trajectories) for episode in episodes} == {3}
    assert {episode.trajectory.model for episode in episodes} == {ENGINE[1]}
    assert {str(each.trajectory.strategy) for each in episodes} == {"{'rounds': 3}"}


def test_what_cannot_be_an_engine_is_one_sentence(here: Path) -> None:
    for arguments, code, said in (
        (("--model", "mine.py:nothing"), 6, "what mine.py:nothing makes has no name"),
        (("--model", "mine.py:unread"), 6, "has a tokenizer of type method"),
        (("--model", "mine.py:none"), 6, "has no attribute 'none'"),
        (("--model", "nowhere_at_all:x"), 6, "unknown engine 'nowhere_at_all'; choose from nano"),
        (("--model", "mine.py:says:7", "--engine", "vllm"), 2, "leave out vllm"),
        (("--engine", "vlm"), 2, "unknown engine 'vlm'; choose from transformers, vllm"),
        (("--strategy", "mine.py:says:7"), 2, "works on nothing but the task"),
    ):
        got, out, err = interlace(here, "run", "?", *arguments)
        assert (got, out, err.count("\n")) == (code, "", 1) and said in err, err
    code, _, err = interlace(here, "run", "?", "--model", "mine.py:Gone", "--tool", "none")
    assert code == 7 and "nobody is here" in err and "Traceback" not in err, err
    code, _, err = interlace(here, "eval", "mine.py:fails:tasks.jsonl", *ENGINE)
    assert code == 9 and "line 1 has another shape: division by zero" in err, err
    code, _, err = interlace(here, "train", "--model", "mine.py:says:7", "--out", "x")
    assert code == 6 and "mine.py:says:7 has no files" in err, err


def test_what_is_resumed_names_no_code_of_its_own(here: Path) -> None:
    chat = ("chat", "--tool", "none", "--quiet")
    code, out, err = interlace(here, *chat, "--keep", *ENGINE)
    assert (code, out) == (0, "77\n"), err
    (here / "mine.py.ran").unlink()
    code, out, err = interlace(here, *chat, "--resume")
    assert code == 2 and "names the engine 'mine.py:says:7@times=2', which would load" in err
    assert not (here / "mine.py.ran").exists()
    code, out, err = interlace(here, *chat, "--resume", *ENGINE)
    assert (code, out) == (0, "77\n"), err
