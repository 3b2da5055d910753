"""`interlace sft` as scripts meet it: a real process, the bundled model, real traces."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import warm
from support.attempts import TOKENIZER
from support.tiny_models import checkpoint
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.models.load import default_format, load_engine
from interlace.rollout.task import Task
from interlace.tools import FunctionTool, PythonTool
from interlace.train.coldstart.checks import check_traces
from interlace.train.coldstart.gsm8k import trace_of
from interlace.train.coldstart.traces import trace_format
from interlace.train.rewards import Checker

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
PATIENCE = 240  # seconds; on a machine with nothing else to do, each command takes ten
SMALL = ["--batch-size", "4", "--learning-rate", "1e-3", "--held-out", "0.2"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums, each done by a call that was really run."""
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    tasks = [
        Task(
            str(n),
            f"{n} and {n + 3}?",
            str(2 * n + 3),
            {"solution": f"<<{n}+{n + 3}={2 * n + 3}>>"},
        )
        for n in range(30)
    ]
    checked = asyncio.run(
        check_traces(
            [(task, trace_of(task) or "") for task in tasks],
            trace_format("retool"),
            PythonTool(),
            Checker(),
            TOKENIZER,
            model="nano",
            origin="made",
        )
    )
    with EpisodeLog(path) as log:
        for episode in checked.kept:
            log.append(episode)
    assert len(checked.kept) == 30
    return path


def start(*arguments: str | Path) -> warm.Popen:
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return warm.Popen(
        [*COMMAND, "sft", *map(str, arguments)], stdout=pipe, stderr=pipe, env=settings
    )


def sft(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_stopped_with_ctrl_c_goes_on_and_its_checkpoint_is_a_model(
    log: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [log, "--out", tmp_path / "run", "--steps", "40", *SMALL]
    with start(*arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 4 of 40"):
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "--resume continues" in err
    done = len(metrics(tmp_path / "run"))
    assert 4 <= done < 40
    assert sft(*arguments)[0] == 2  # there is a run: nothing is trained over it

    code, out, err = sft(*arguments, "--resume", "--json")
    assert code == 0, err
    report, steps = json.loads(out), metrics(tmp_path / "run")
    assert [each["step"] for each in steps] == list(range(1, 41))
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"] and report["refused"] == 0
    assert report["held_out_loss"] == steps[-1]["held_out/loss"] and report["held_out"] > 0
    engine = load_engine(report["model"], device="cpu")
    assert engine.tokenizer.encode("</code>") == TOKENIZER.encode("</code>")
    # It speaks what it was taught, unless that can't call what it is offered.
    assert default_format(report["model"], engine.tokenizer, [PythonTool()]) == "retool"
    other = FunctionTool(lambda: 1, name="other")
    assert default_format(report["model"], engine.tokenizer, [other]) == "hermes"


@pytest.mark.slow
def test_sigterm_saves_and_a_lower_rate_and_fewer_tokens_at_once_may_follow(
    log: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments: list[str | Path] = [log, "--out", out, "--steps", "60", "--batch-size", "4"]
    with start(*arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 3 of 60"):
                process.send_signal(signal.SIGTERM)
                break
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143 and "--resume continues" in err
    done = json.loads((out / "checkpoint" / "trainer.json").read_text())["done"]
    assert done == metrics(out)[-1]["step"] < 60
    arguments[arguments.index("60")] = str(done + 1)
    code, err = in_process(*arguments, "--resume", "--seed", "1")
    assert code == 9 and "whose seed is 0 and not 1" in err
    lower = ("--learning-rate", "1e-6", "--micro-tokens", "4096")
    code, err = in_process(*arguments, "--resume", *lower)
    assert code == 0, err
    assert "learning_rate is 1e-06 from here on; it was 2e-05" in err
    assert f"# from step {done + 1} on: learning_rate 1e-06" in (out / "config.yaml").read_text()
    code, err = in_process(log, "--out", tmp_path / "other", "--learning-rate", "nan")
    assert code == 2 and "learning_rate must be above 0 and at most 1, not nan" in err
    code, err = in_process(
        log, "--out", tmp_path / "other", "--lora-rank", "4", "--lora-alpha", "inf"
    )
    assert code == 2 and "lora_alpha (flag): must be a number that is finite, not inf" in err


def in_process(*arguments: str | Path) -> tuple[int, str]:
    """The exit code and stderr of a run that needs no process of its own."""
    done = CliRunner().invoke(app, ["sft", *map(str, arguments)])
    return done.exit_code, done.stderr


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    make: Any = AutoModelForCausalLM
    weights: dict[str, torch.Tensor] = make.from_pretrained(folder).state_dict()
    return weights


@pytest.mark.slow
def test_adapters_are_trained_and_added_in(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs interlace[train]")
    out = tmp_path / "run"
    code, err = in_process(log, "--out", out, "--steps", "12", "--lora-rank", "4", *SMALL)
    assert code == 0, err
    steps = metrics(out)
    assert steps[-1]["loss"] < steps[0]["loss"]
    before, after = loaded(TOKENIZER.path), loaded(out / "checkpoint")
    assert before.keys() == after.keys()
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    assert changed and all("proj" in name for name in changed)


def test_what_can_not_be_trained_on_is_one_sentence(log: Path, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "noise")
    code, err = in_process(log, "--model", other, "--out", tmp_path / "run")
    assert code == 9 and "written for another tokenizer" in err
    code, err = in_process(tmp_path / "nowhere.jsonl", "--out", tmp_path / "run")
    assert code == 9 and "nowhere.jsonl" in err
