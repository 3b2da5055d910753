"""`interlace sft`: supervised fine-tuning on logs of episodes."""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from ....rollout.formats import FORMATS
from ....rollout.models.files import find_model
from ....rollout.tokenizer import Tokenizer
from ....tools.errors import DataError
from ....tools.files import read_object
from ....train.config import read_config
from ....train.local.ledgers import Ledgers, read_ledgers
from ....train.local.record import Record
from ....train.local.sft import SFTConfig, SFTReport, sft
from ....train.local.training_setup import load_trainable
from ..commands.sft import Precision, SftOptions
from ..exits import Terminated, eprint, print_json
from ..options import OutputOptions
from ..render.progress import make_bar
from ..render.terminal import make_console
from .train import check_folder

__all__ = ["run"]


_SETTINGS = {
    "epochs": ("steps", "warmup"),
    "steps": ("steps", "warmup"),
    "precision": ("bfloat16",),
}
"""The settings of a run that an option decides, where they have another name."""


def run(logs: list[Path], job: SftOptions, output: OutputOptions, given: set[str]) -> None:
    """Fine-tune. Settings of options that were `given` may differ in a run that is resumed."""
    check_folder(job.out, resume=job.resume)

    names = ("model", "device", "lora_rank", "lora_alpha", "gradient_checkpointing", "seed")
    asked = {name: getattr(job, name) for name in names} | {"precision": job.precision.value}
    loading = read_config(None, asked).config
    source = find_model(job.model)
    longest = min(job.max_length, _context(source) or job.max_length)
    found = read_ledgers(logs, Tokenizer.load(source), held_out=job.held_out, max_length=longest)
    config = _config(job, len(found.training))
    # A team's members speak in plain words, which no agent is given as its format.
    formats = [name for name, _ in found.formats.most_common() if name in FORMATS]
    with Record(job.out, settings=_as_yaml(logs, job, config)) as record:
        model = load_trainable(source, loading)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        with _Screen(config, hidden=output.quiet) as screen:
            screen.say(_begin(found, config, trained, str(model.device)))
            try:
                report = sft(
                    model,
                    found.training,
                    config,
                    job.out,
                    held_out=found.held_out,
                    progress=screen.step,
                    record=record,
                    source=source,
                    format=formats[0] if formats else None,
                    changed={setting for name in given for setting in _SETTINGS.get(name, (name,))},
                    tell=screen.say,
                )
            except (KeyboardInterrupt, Terminated):
                screen.say(f"stopped; the same command with --resume continues in {job.out}")
                raise
    _tell(job, found, config, report, output)


def _as_yaml(logs: list[Path], job: SftOptions, config: SFTConfig) -> str:
    """All settings of a run, a line each."""
    settings = {"logs": list(map(str, logs)), "model": job.model, "lora_rank": job.lora_rank}
    settings |= {"lora_alpha": job.lora_alpha, "held_out": job.held_out, "device": job.device}
    settings |= {**asdict(config), "gradient_checkpointing": job.gradient_checkpointing}
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())


def _context(source: Path) -> int | None:
    """The tokens that the model of a folder can read, where it says so."""
    try:
        config = read_object(source / "config.json")
    except DataError:
        return None  # loading the model will say what is wrong with it
    length = config.get("text_config", config).get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _config(job: SftOptions, ledgers: int) -> SFTConfig:
    """The configuration from the options, for so many ledgers."""
    size = min(job.batch_size, ledgers)
    steps = job.steps or max(1, round(job.epochs * ledgers / size))
    usual = 2e-4 if job.lora_rank else 2e-5
    rate = usual if job.learning_rate is None else job.learning_rate
    return SFTConfig(
        steps=steps,
        batch_size=size,
        learning_rate=rate,
        warmup=max(1, steps // 20),
        max_length=job.max_length,
        micro_tokens=job.micro_tokens,
        bfloat16=job.precision is Precision.BFLOAT16,
        seed=job.seed,
        evaluate_every=job.evaluate_every,
        save_every=job.save_every,
    )


def _begin(found: Ledgers, config: SFTConfig, trained: int, device: str) -> str:
    tokens = sum(map(len, found.training))
    learnt = sum(int((ledger.loss_weights > 0).sum()) for ledger in found.training)
    left_out = ", ".join(f"{count} {why}" for why, count in found.left_out.items()) or "none"
    return (
        f"{len(found.training)} ledgers of {tokens:,} tokens, {learnt / tokens:.0%} of them learnt "
        f"from; held out {len(found.held_out)}, left out {left_out} · {trained:,} weights on "
        f"{device} · {config.steps} steps of {config.batch_size}"
    )


def _tell(
    job: SftOptions,
    found: Ledgers,
    config: SFTConfig,
    report: SFTReport,
    output: OutputOptions,
) -> None:
    """The end: what came of it."""
    fields: dict[str, Any] = {
        "out": str(job.out),
        "model": str(job.out / "checkpoint"),
        "steps": config.steps,
        "ledgers": len(found.training),
        "held_out": len(found.held_out),
        "left_out": dict(found.left_out),
        "loss": report.losses[-1],
        "held_out_loss": report.held_out.get(config.steps),
        "tokens": report.tokens,
        "seconds": report.seconds,
        "refused": report.refused,
        "error": None,
    }
    if output.json:
        print_json(fields)
    elif not output.quiet:
        eprint(f"{config.steps} steps in {report.seconds:.0f} s; the model is {fields['model']}")


class _Screen:
    """On a terminal a bar; elsewhere some twenty lines over the run."""

    def __init__(self, config: SFTConfig, *, hidden: bool) -> None:
        self._config = config
        self._hidden = hidden
        self._console = make_console(sys.stderr)
        self._live = self._console.is_terminal and not hidden
        self._bar = make_bar(self._console, hidden=hidden)
        self._task = self._bar.add_task("", total=config.steps)

    def say(self, sentence: str) -> None:
        """One line."""
        if not self._hidden:
            self._console.print(sentence, markup=False, soft_wrap=True)

    def step(self, step: int, report: SFTReport) -> None:
        """A step is done."""
        recent = report.losses[-10:]
        text = f"loss {sum(recent) / len(recent):.4f}"
        if report.held_out:
            text += f" · held out {report.held_out[max(report.held_out)]:.4f}"
        text += f" · {report.tokens / max(report.seconds, 1e-9):.0f} tokens/s"
        self._bar.update(self._task, completed=step, description=text)
        every = math.ceil(self._config.steps / 20)
        if not self._live and (step % every == 0 or step in report.held_out):
            self.say(f"step {step} of {self._config.steps}: {text}")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
