"""Whether a run fits a card, and what is said where it does not."""

import json
import re
import shutil
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
from support.fakes import NANO
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.tools.errors import ToolUnavailable
from interlace.train.config import TrainConfig, read_config
from interlace.train.preflight.finding import line_of
from interlace.train.preflight.memory import Estimate, Part, estimate_local
from interlace.train.preflight.model_shapes import KNOWN_SHAPES, Shape, find_shape
from interlace.train.preflight.reachability import hub_has, ray_nodes

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
    assert peak(concurrency=512) > plain  # the engine's cache stays while the trainer updates
    few: dict[str, Any] = {"micro_tokens": 512, "gradient_checkpointing": True}
    # Autocast has all weights a second time, in two bytes; nearly no activations beside them.
    more = peak(**few, precision="bfloat16") - peak(**few)
    assert more == pytest.approx(2 * shape.parameters / 1e9, rel=0.1)
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


def test_doctor_compares_the_checkpoints_with_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"model: Qwen/Qwen3-4B\nlora_rank: 8\nout: {tmp_path / 'a' / 'run'}\n")

    def disk(free: int) -> dict[str, object]:
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        asked = ["doctor", "--train", str(file), "--gpu", "80GB", "--no-try", "--json"]
        told = json.loads(CliRunner().invoke(app, asked).stdout)
        found: dict[str, object] = next(f for f in told["findings"] if f["what"] == "disk")
        return found

    assert disk(10**12)["ok"] is True
    little = disk(20 * 10**9)  # one of 16 GB would fit, but not the next one beside it
    assert little["ok"] is False and "(run.yaml, line 3)" in str(little["text"])
    assert "20.0 GB are free" in str(little["text"])


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


class Hub(BaseHTTPRequestHandler):
    """A server that answers as Hugging Face does, by the model's name."""

    WRONG: ClassVar = {
        "gated": (403, "GatedRepo"),
        "nobody": (404, "RepoNotFound"),
        "bare": (404, "EntryNotFound"),
        "busy": (503, ""),
    }

    def do_HEAD(self) -> None:
        name = self.path.split("/")[2]
        status, why = self.WRONG.get(name, (200, ""))
        if name == "odd":
            status, why = (404, "EntryNotFound") if "tokenizer" in self.path else (200, "")
        self.send_response(status)
        for header, value in (("X-Error-Code", why), ("X-Repo-Commit", "a" * 40), ("ETag", '"b"')):
            self.send_header(header, value)
        self.send_header("Content-Length", "7")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "ok", "said"),
    [
        ("there", True, "it is fetched when the run begins"),
        ("gated", False, "accept its terms"),
        ("nobody", False, "no such model, or it is private"),
        ("bare", False, "no config.json"),
        ("odd", None, "no tokenizer.json"),
        ("busy", None, "did not answer"),
    ],
)
def test_a_model_is_looked_for_without_fetching_it(name: str, ok: bool | None, said: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = hub_has(f"me/{name}", endpoint=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found[0] is ok
    assert said in found[1]


def test_a_hub_that_is_not_there_is_no_crash() -> None:
    ok, said = hub_has("me/there", endpoint=f"http://127.0.0.1:{_closed()}")
    assert ok is None
    assert "hf download me/there" in said


def test_a_cluster_that_does_not_answer_is_told_by_its_address() -> None:
    address = f"127.0.0.1:{_closed()}"
    with pytest.raises(ToolUnavailable, match=f"nothing answers at {address}"):
        ray_nodes(address)


def _closed() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_a_run_is_tried_in_small_on_the_machine_it_is_for(tmp_path: Path) -> None:
    file, report = tmp_path / "run.yaml", tmp_path / "report.json"
    file.write_text("micro_tokens: 512\nmax_tokens: 192\nlora_rank: 4\nmax_turns: 2\n")
    asked = ["doctor", "--train", str(file), "--try", "--json", "--report", str(report)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    told = json.loads(report.read_text())["findings"]
    findings = {finding["what"]: finding for finding in told}
    for what in ("tasks", "sampling", "agreement", "update", "full update"):
        assert findings[what]["ok"] is True, findings[what]
    assert "2 episodes" in findings["sampling"]["text"]
    assert "512 tokens in rows of 256" in findings["full update"]["text"]
    assert not list(tmp_path.glob("**/*.safetensors"))  # nothing of it stays


def test_what_is_wrong_already_is_not_tried(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("steps: 5\ntasks: nowhere.jsonl\n")
    done = CliRunner().invoke(app, ["doctor", "--train", str(file), "--try"])
    assert done.exit_code == 9
    assert "tasks=nowhere.jsonl (run.yaml, line 2)" in done.stdout
    assert "not tried: first mend tasks" in done.stdout
