"""The first step of a run, told before anything is loaded: rows, batches, steps, disk, processors.

What can't be done with the run as it is asked for is raised; what only this machine lacks is
listed, since a run may be looked at on another machine than the one it is for.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...tools.errors import DataError, InterlaceError, ModelError, ToolUnavailable, UsageError
from ..preflight.model_shapes import Shape, find_shape
from .rules import has_critic, nodes, parallel
from .settings import LoopSettings

__all__ = ["Plan", "checkpoint_bytes", "count_rows", "listed", "make_plan", "processors"]

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run, and what this machine lacks for it."""

    steps: int | None
    """The last step; None where the number of tasks is not known here."""
    lines: Sequence[str]
    """All of it in words."""
    lacking: Sequence[InterlaceError]
    """What is missing on this machine: files, disk, processors."""


def make_plan(config: Any, settings: LoopSettings, given: Mapping[str, int], done: int) -> Plan:
    """The plan of a composed and checked configuration.

    `given` is how many tasks `--tasks` and `--held-out` name, by their key (`train_files`,
    `val_files`); the other files are counted if they are on this machine. `done` steps are over.
    Raises UsageError for fewer tasks than a step takes, and for steps that can't be.
    """
    lacking: list[InterlaceError] = []
    rows = _rows(config, "train_files", given, lacking)
    held_out = _rows(config, "val_files", given, lacking)
    steps = _steps(config, rows, done)
    lines = [
        *_step_lines(config, settings),
        _steps_line(config, rows, steps, done),
        _validation_line(config, held_out),
        _checkpoint_line(config, steps, done, lacking),
        _processors_line(config, lacking),
    ]
    return Plan(steps, lines, lacking)


def count_rows(file: Path) -> int:
    """The rows of a file that verl reads: Parquet, JSON lines or a JSON list.

    Raises DataError where it is not there or is none of these.
    """
    if not file.is_file():
        raise DataError(f"there is no {file}: --tasks and --held-out write such files")
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet

            return int(pyarrow.parquet.read_metadata(file).num_rows)
        if file.suffix in (".json", ".jsonl"):
            text = file.read_text(encoding="utf-8").strip()
            if text.startswith("["):
                return len(json.loads(text))
            return sum(bool(line.strip()) for line in text.split("\n"))
    except (OSError, ValueError) as error:  # pyarrow's errors are one or the other
        raise DataError(f"can't read {file}: {error}") from error
    raise DataError(f"{file} ends with none of .parquet, .json and .jsonl, which verl reads")


def _rows(
    config: Any, key: str, given: Mapping[str, int], lacking: list[InterlaceError]
) -> int | None:
    files = config.data[key]
    try:
        found = given.get(key)
        if found is None:
            found = sum(count_rows(Path(each).expanduser()) for each in listed(files))
    except DataError as error:
        lacking.append(DataError(f"data.{key}: {error}"))
        return None
    most = config.data.get("train_max_samples" if key == "train_files" else "val_max_samples", -1)
    found = found if most is None or most < 0 else min(found, most)
    needed = config.data.train_batch_size if key == "train_files" else 1
    if found < needed:
        raise UsageError(
            f"data.{key} holds {found} tasks, and a step takes data.train_batch_size={needed}: "
            "lower that, or name more tasks"
            if key == "train_files"
            else f"data.{key} holds no task to validate on"
        )
    return found


def listed(files: Any) -> list[str]:
    """One file or several, as verl's keys have them."""
    return [files] if isinstance(files, str) else [str(each) for each in files or ()]


# -- steps ---------------------------------------------------------------------------------------


def _steps(config: Any, rows: int | None, done: int) -> int | None:
    """The last step as verl counts it. Raises UsageError where `total_epochs` would end the run
    before `total_training_steps`, or where all is done already.
    """
    wanted, epochs = config.trainer.total_training_steps, config.trainer.total_epochs
    steps = wanted
    if rows is not None:
        in_epoch = rows // config.data.train_batch_size
        steps = in_epoch * epochs if wanted is None else wanted
        if steps > in_epoch * epochs:
            raise UsageError(
                f"trainer.total_training_steps={wanted}: trainer.total_epochs={epochs} ends the "
                f"run after {in_epoch * epochs} steps of {config.data.train_batch_size} tasks, so "
                f"set it to {math.ceil(wanted / in_epoch)}, or say --steps {wanted}"
            )
    if steps is not None and steps <= done:
        raise UsageError(f"{done} steps are done of {steps}: ask for more with --steps")
    return None if steps is None else int(steps)


def _step_lines(config: Any, settings: LoopSettings) -> list[str]:
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    batch, mini = config.data.train_batch_size, actor.ppo_mini_batch_size
    episodes, cards = batch * rollout.n, config.trainer.n_gpus_per_node * config.trainer.nnodes
    tools = "the tools that a task brings" if settings.tools is None else ", ".join(settings.tools)
    who = f"the team {settings.attempt}" if settings.attempt else f"{settings.format} with {tools}"
    updates = math.ceil(batch / mini) * actor.ppo_epochs
    at_once = (
        f"at most {actor.ppo_max_token_len_per_gpu} tokens"
        if actor.use_dynamic_bsz
        else f"{actor.ppo_micro_batch_size_per_gpu} rows"
    )
    shared = f", which share a batch in {parallel(config)} parts" if cards > 1 else ""
    mode = config.trainer.v1.trainer_mode
    split = rollout.tensor_model_parallel_size
    engine = f"{rollout.name}, {split} cards each" if split > 1 else str(rollout.name)
    if mode == "separate_async":
        engine += f", on {rollout.nnodes} x {rollout.n_gpus_per_node} cards of its own"
    return [
        f"first step: {batch} tasks x {rollout.n} attempts = {episodes} episodes, {who}",
        f"an episode: at most {rollout.prompt_length} tokens of prompt and "
        f"{rollout.response_length} of response, {settings.max_turns} turns, "
        f"{settings.max_calls} calls",
        f"then {updates} update{'s' if updates > 1 else ''} of {mini * rollout.n} episodes each, "
        f"{at_once} at once on a card ({config.algorithm.adv_estimator}, {actor.loss_agg_mode})",
        f"devices: {config.trainer.nnodes} x {config.trainer.n_gpus_per_node} "
        f"{config.trainer.device}{shared}; {engine}; {mode}",
    ]


def _steps_line(config: Any, rows: int | None, steps: int | None, done: int) -> str:
    batch = config.data.train_batch_size
    if rows is None:
        of = "an unknown number of tasks" if steps is None else f"{steps * batch} tasks drawn"
        return f"steps: {'unknown' if steps is None else steps} ({of})"
    assert steps is not None
    epochs = steps * batch / (rows // batch * batch)
    behind = f", {done} of them done" if done else ""
    return f"steps: {steps}{behind} ({epochs:.3g} epochs of {rows} tasks, {batch} a step)"


def _validation_line(config: Any, held_out: int | None) -> str:
    trainer, tries = config.trainer, config.actor_rollout_ref.rollout.val_kwargs.n
    tasks = "an unknown number of" if held_out is None else held_out
    first = "before the first step, " if trainer.val_before_train else ""
    return (
        f"validation: {tasks} tasks x {tries}, {first}every {trainer.test_freq} steps, at the end"
    )


# -- disk ----------------------------------------------------------------------------------------


def checkpoint_bytes(config: Any, shape: Shape) -> int:
    """The bytes of one checkpoint of verl's: weights and both of AdamW's moments, of the critic
    too where there is one. With adapters only they have moments.
    """
    whole = config.actor_rollout_ref
    lora = whole.model.lora_rank
    trained = shape.adapters(lora) if lora else shape.parameters
    total = _part_bytes(shape, trained, whole.actor.fsdp_config.model_dtype, whole.actor.checkpoint)
    if has_critic(config):
        critic = config.critic
        total += _part_bytes(shape, shape.parameters, critic.fsdp.model_dtype, critic.checkpoint)
    return total


def _part_bytes(shape: Shape, trained: int, dtype: str, checkpoint: Any) -> int:
    width = 2 if dtype in ("bf16", "bfloat16") else 4
    saved = set(checkpoint.save_contents)
    own = trained if checkpoint.get("save_lora_only") and trained < shape.parameters else None
    weights = width * (shape.parameters if own is None else own) if "model" in saved else 0
    moments = 2 * width * trained if "optimizer" in saved else 0
    return weights + moments + (2 * shape.parameters if "hf_model" in saved else 0)


def _checkpoint_line(
    config: Any, steps: int | None, done: int, lacking: list[InterlaceError]
) -> str:
    trainer = config.trainer
    every, kept = trainer.save_freq, trainer.max_actor_ckpt_to_keep
    text = f"checkpoints: every {every} steps and at the end"
    text += ", all kept" if kept is None else f", the last {kept} kept"
    try:
        size = checkpoint_bytes(config, find_shape(str(config.actor_rollout_ref.model.path)))
    except ModelError:
        return f"{text}; how large is not known: the model is not on this machine"
    folder = Path(trainer.default_local_dir).expanduser()
    free = shutil.disk_usage(_existing(folder)).free
    text += f"; {_size(size)} each, in {folder} ({_size(free)} free)"
    saves = None if steps is None else math.ceil(steps / every) - done // every
    if kept is None and saves is None:
        return text
    # The next one is whole before the oldest goes, unless two or more are kept.
    together = min(filter(None, (saves, None if kept is None else max(2, kept))))
    needed = together * size / trainer.nnodes  # each node writes what it holds
    if needed > free:
        lacking.append(
            DataError(
                f"{together} checkpoints of {_size(size)} need {_size(needed)} of disk, and "
                f"{_existing(folder)} has {_size(free)} free: keep fewer with "
                "trainer.max_actor_ckpt_to_keep, save less often with trainer.save_freq, or name "
                "another --out"
            )
        )
    return text


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())


def _size(count: float) -> str:
    return f"{count / _GB:.1f} GB" if count >= _GB / 10 else f"{count / 1e6:.1f} MB"


# -- processors ----------------------------------------------------------------------------------


def processors(config: Any) -> int:
    """The processors that verl has Ray set aside, and one to place all else with.

    Three for each card of the trainer and two for each of an engine of its own (verl 0.9.1,
    RayResourcePool), one for TransferQueue's controller and one for each of its storage units.
    Where fewer are there, Ray waits for them without an end.
    """
    trainer, rollout = config.trainer, config.actor_rollout_ref.rollout
    cards = trainer.nnodes * trainer.n_gpus_per_node
    held = 3 * cards + 1 + config.transfer_queue.backend.SimpleStorage.num_data_storage_units
    if trainer.v1.trainer_mode == "separate_async":
        held += 2 * rollout.nnodes * rollout.n_gpus_per_node
    return int(held) + 1


def _processors_line(config: Any, lacking: list[InterlaceError]) -> str:
    needed, start = processors(config), config.ray_kwargs.ray_init
    text = f"processors: {needed} for Ray's services"
    address = start.get("address") or os.environ.get("RAY_ADDRESS")
    if config.trainer.nnodes > 1 and not address:
        lacking.append(
            ToolUnavailable(
                f"trainer.nnodes={config.trainer.nnodes} and no Ray to join, so it would wait for "
                "ever: `ray start --head` on one node, `ray start --address=HEAD:6379` on the "
                "others, and RAY_ADDRESS=HEAD:6379 for this command"
            )
        )
    if nodes(config) > 1 or address:
        return f"{text}, over all nodes"
    here = start.get("num_cpus") or os.cpu_count() or 1
    if here < needed:
        lacking.append(
            ToolUnavailable(
                f"verl's services hold {needed} processors and Ray has {here} here, so it would "
                "wait for ever: lower transfer_queue.backend.SimpleStorage.num_data_storage_units, "
                "or let Ray count more with ray_kwargs.ray_init.num_cpus"
            )
        )
    return f"{text}, {here} here"
