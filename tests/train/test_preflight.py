"""Whether a run fits a card, and what is said where it does not."""

import json
import re
from pathlib import Path

import pytest
from doubles import NANO
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.train.config import TrainConfig, read_config
from interlace.train.memory import Estimate, Part, estimate_local
from interlace.train.preflight import line_of
from interlace.train.shapes import KNOWN_SHAPES, Shape, find_shape

PRESETS = sorted((Path(__file__).parents[2] / "examples/presets").glob("*.yaml"))


def test_a_models_weights_are_counted_as_they_are() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(NANO)
    real = sum(parameter.numel() for parameter in model.parameters())
    assert find_shape("nano").parameters == pytest.approx(real, rel=0.002)  # norms


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_a_preset_fits_the_card_that_it_names(file: Path) -> None:
    config = read_config(file, {}).config
    card = float(re.findall(r"_(\d+)gb", file.stem)[0])
    estimate = estimate_local(config, find_shape(config.model))
    assert estimate.problem(card) is None, estimate
    assert estimate.total(estimate.peak) > card / 4  # made for this card, not for a smaller one


def test_what_changes_memory_is_in_the_estimate() -> None:
    shape = KNOWN_SHAPES["Qwen/Qwen3-0.6B"]

    def peak(phase: str = "updating", **settings: object) -> float:
        return estimate_local(TrainConfig.model_validate(settings), shape).total(phase)

    plain = peak()
    assert peak(lora_rank=8) < plain < peak(kl_weight=0.1)
    assert peak(gradient_checkpointing=True) < plain < peak(micro_tokens=65536)
    assert peak("rolling out", concurrency=512) > peak("rolling out")
    assert peak(lora_rank=8, precision="bfloat16") < peak(lora_rank=8)


def test_what_does_not_fit_names_the_largest_part_and_its_setting() -> None:
    parts = [Part("weights", 9.0, "lora_rank"), Part("CUDA", 1.0)]
    estimate = Estimate({"updating": parts, "rolling out": parts[1:]})
    assert estimate.problem(16) is None
    said = estimate.problem(10)
    assert said is not None
    assert "updating takes about 10.0 GB of 10" in said
    assert "weights (9.0 GB), which lora_rank changes" in said


def test_a_mixture_of_experts_is_not_reckoned_as_if_it_were_dense() -> None:
    with pytest.raises(ValueError, match="mixture"):
        Shape.read({"num_experts": 64})


def test_a_setting_is_found_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("# first\ndata:\n  x: 1\n  seed: 3\nsteps: 5\n")
    assert [line_of(file, key) for key in ("data.seed", "steps", "data", "data.y", "x.y")] == [
        4, 5, 2, None, None,
    ]  # fmt: skip


def test_doctor_looks_at_a_run_and_writes_a_report(tmp_path: Path) -> None:
    file, report = tmp_path / "run.yaml", tmp_path / "report.json"
    file.write_text("steps: 5\nmicro_tokens: 4000000\n")
    asked = ["doctor", "--train", str(file), "--report", str(report), "--json"]
    done = CliRunner().invoke(app, [*asked, "--gpu", "24GB"])
    told = json.loads(done.stdout)
    findings = {finding["what"]: finding for finding in told["findings"]}
    assert done.exit_code == 2
    assert findings["memory"]["ok"] is False
    assert "micro_tokens changes (run.yaml, line 2)" in findings["memory"]["text"]
    for what in ("configuration", "model", "tokenizer", "Python sandbox"):
        assert findings[what]["ok"] is True, findings[what]
    assert json.loads(report.read_text())["findings"] == told["findings"]
    assert str(tmp_path) not in json.dumps(told["findings"][2:])
    file.write_text("steps: 5\n")
    done = CliRunner().invoke(app, [*asked, "--gpu", "24GB"])
    assert done.exit_code == 0, done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--train", "nowhere.yaml"], 9, "can't read nowhere.yaml"),
        (["--train", "nowhere.yaml", "--gpu", "big"], 2, "such as 24GB"),
    ],
)
def test_doctor_says_what_is_wrong_in_a_sentence(
    arguments: list[str], code: int, said: str
) -> None:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == code
    assert said in done.output
