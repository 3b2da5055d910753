"""A run's folder: metrics and episodes of every step, and what a resumed run does over.

runs/NAME/
    config.yaml          what the run is made with
    metrics.jsonl        one line a step
    episodes/            00007.jsonl: the episodes of step 7; held-out-00010.jsonl: after step 10
    checkpoint/          the last one: a model, and what the run needs to resume
    wandb-id             the run's id at Weights & Biases, if it logs there
    replaced/            steps after the checkpoint that a killed run had made, done over since
"""

import fcntl
import json
import math
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from ...rollout.episode_log import EpisodeLog
from ...tools.errors import DataError, MissingExtra
from ...tools.files import append_whole, read_text, write_error, write_whole
from .checkpoint import Change

__all__ = ["Record", "Sink", "TensorBoard", "WeightsAndBiases", "read_metrics", "wandb_id"]

Metrics = Mapping[str, float]


class Sink(Protocol):
    """Something else that wants a step's metrics."""

    def begin(self, done: int) -> None:
        """The run begins or resumes after `done` steps; those after it are repeated."""
        ...

    def log(self, step: int, metrics: Metrics) -> None:
        """Take the metrics of a step."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class Record:
    """The open folder of a run; one process at a time. Use it as a context manager.

    Raises DataError where it can't be written or another process trains in it.
    """

    def __init__(
        self, folder: Path, sinks: "list[Sink] | None" = None, *, settings: str | None = None
    ) -> None:
        """`settings` go into config.yaml once the run has begun or resumed."""
        self.folder = folder
        self._settings = settings
        self._sinks = sinks or []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            how = os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._file = os.open(folder / "metrics.jsonl", how, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise DataError(f"another process trains in {folder}") from error
        except OSError as error:
            raise write_error(folder, error) from error

    def truncate_after(self, step: int, changes: Sequence[Change] = ()) -> None:
        """Move what is recorded of the steps after `step` to `replaced/`: they are repeated.

        config.yaml is written, with the settings that were changed on the way as comments.
        """
        if self._settings is not None:
            notes = (
                f"# from step {each['step']} on: {each['name']} {json.dumps(each['now'])}, "
                f"before {json.dumps(each['was'])}\n"
                for each in changes
            )
            self.write("config.yaml", self._settings + "".join(notes))
        replaced = self.folder / "replaced"
        lines = read_text(self.folder / "metrics.jsonl").splitlines(True)
        kept = [line for line in lines if line.endswith("\n") and _step(line) <= step]
        try:
            if len(kept) < len(lines):
                replaced.mkdir(exist_ok=True)
                gone = "".join(line for line in lines if line not in kept).encode()
                with (replaced / "metrics.jsonl").open("ab") as file:
                    append_whole(file.fileno(), replaced / "metrics.jsonl", gone)
                os.ftruncate(self._file, len("".join(kept).encode()))
            for path in sorted((self.folder / "episodes").glob("*.jsonl")):
                number = re.search(r"(\d+)\.jsonl$", path.name)
                if number and int(number[1]) > step:
                    replaced.mkdir(exist_ok=True)
                    count = len(list(replaced.glob(f"{path.stem}*.jsonl")))
                    os.replace(path, replaced / f"{path.stem}-{count}.jsonl")
        except OSError as error:
            raise write_error(self.folder, error) from error
        for sink in self._sinks:
            sink.begin(step)

    def write(self, name: str, text: str) -> None:
        """Put a small file into the folder, whole or not at all. Raises DataError."""
        write_whole(self.folder / name, text)

    def episodes(self, step: int, prefix: str = "") -> EpisodeLog:
        """The log of a step's episodes."""
        return EpisodeLog(self.folder / "episodes" / f"{prefix}{step:05}.jsonl")

    def log(self, step: int, metrics: Metrics) -> None:
        """Add one step. Raises DataError (a full disk, say) and leaves no half line behind."""
        # JSON has no NaN.
        numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = (json.dumps({"step": step, **numbers}) + "\n").encode()
        append_whole(self._file, self.folder / "metrics.jsonl", line)
        for sink in self._sinks:
            sink.log(step, metrics)

    def close(self) -> None:
        """Close all."""
        for sink in self._sinks:
            sink.close()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of all steps; a last line that a killed run tore is left out."""
    file = folder / "metrics.jsonl"
    try:
        lines = read_text(file).splitlines(True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
    except (ValueError, RecursionError) as error:
        raise DataError(f"can't read {file}: {error}") from error
    if not all(isinstance(each, dict) for each in found):
        raise DataError(f"can't read {file}: a line of it is not a JSON object")
    return found


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, RecursionError, LookupError, TypeError, OverflowError) as error:
        raise DataError(f"metrics.jsonl is damaged: {line[:60]!r} is no step's metrics") from error


class TensorBoard:
    """Writes event files into the run's folder; repeated steps take the place of earlier ones.

    Raises MissingExtra without tensorboard, DataError where they can't be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("TensorBoard", "tensorboard") from error
        self._make: Any = SummaryWriter  # untyped
        self._folder = folder / "tensorboard"
        self._writer: Any = None

    def begin(self, done: int) -> None:
        """Open an event file, which has readers forget the steps after `done`."""
        try:
            self._writer = self._make(str(self._folder), purge_step=done + 1)
        except OSError as error:
            raise write_error(self._folder, error) from error

    def log(self, step: int, metrics: Metrics) -> None:
        """One scalar for each metric."""
        try:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        except OSError as error:
            raise write_error(self._folder, error) from error

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            with suppress(OSError):  # the last `log` has said so
                self._writer.close()


def wandb_id(folder: Path) -> str:
    """The id of a run's folder at W&B, drawn once and kept in it, wherever it is moved to.

    Raises DataError where it can't be written or read.
    """
    file = folder / "wandb-id"
    try:
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, f"{secrets.token_hex(8)}\n")
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"can't keep the id of a run in {file}: {reason}") from error


class WeightsAndBiases:
    """Sends the metrics to a project; a resumed run continues the same one there, by the id in the
    folder's file `wandb-id`. Of a step that is repeated the first values stay.

    Raises MissingExtra without wandb.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra("Weights & Biases", "wandb") from error
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=wandb_id(folder),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def begin(self, done: int) -> None:
        """Nothing: W&B itself drops steps that it has."""

    def log(self, step: int, metrics: Metrics) -> None:
        """One point for each metric."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
