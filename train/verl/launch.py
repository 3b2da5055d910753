"""Starting verl's trainer: a recipe, what is said otherwise, and a check before anything runs."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...rollout.models.files import KNOWN, local_model
from ...rollout.task import Task
from ...tools.errors import DataError, ToolUnavailable, UsageError
from ..config import absolute_names, read_yaml
from ..data.public import ADAPTERS
from ..data.sources import find_tasks
from ..data.task_sets import fingerprint
from ..objectives import OBJECTIVES, find_objective
from .compose import RECIPES, check
from .data import write_dataset
from .ending import ENDED
from .plan import Plan, listed, make_plan
from .rules import ACTOR, ROLLOUT
from .settings import PLACE, read_settings

__all__ = ["Launch", "find_recipe", "own_names", "prepare", "recipes"]

_FLAGS = {
    "model": ("actor_rollout_ref.model.path",),
    "reward": (f"{PLACE}.reward",),
    "checker": (f"{PLACE}.checker",),
    "credit": (f"{PLACE}.credit",),
    # An epoch has one step at least, so that as many epochs never end the run before its steps.
    "steps": ("trainer.total_training_steps", "trainer.total_epochs"),
    "learning_rate": (f"{ACTOR}.optim.lr",),
    "lora_rank": ("actor_rollout_ref.model.lora_rank",),
    "device": ("trainer.device",),
    "seed": ("data.seed", f"{ACTOR}.data_loader_seed", f"{ROLLOUT}.seed"),
}
"""The command's flags, and verl's keys for them."""
_DATA = {"tasks": ("train", "train_files"), "held_out": ("test", "val_files")}
"""The flags that name tasks: the split, and verl's key for its file."""
_LOSSES = {"clipped_loss": "vanilla", "reinforce_loss": "gpg"}
"""Where verl has a loss of ours under another name."""

_TRAVELS = (
    "HF_", "HUGGINGFACE_", "INTERLACE_", "MKL_", "MLFLOW_", "NCCL_", "OMP_", "PYTHONPATH",
    "SGLANG_", "SWANLAB_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_", "VERL_", "VLLM_", "WANDB_",
)  # fmt: skip
"""Beginnings of the variables that Ray's processes get from us, wherever Ray was started."""
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray reads a job's runtime environment from this variable; its values are in no command line."""
_LEAVING = 60.0
"""Seconds that verl's trainer has to end in, once we do."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of verl's trainer, checked."""

    recipe: Path
    overrides: tuple[str, ...]
    out: Path
    config: Any
    """The whole configuration, composed."""
    plan: Plan
    data: Mapping[str, tuple[str, list[Task]]]
    """The name and the tasks of each split that is to be written as a file for verl."""
    resume: bool

    @property
    def command(self) -> list[str]:
        """The command line, as a user could have typed it."""
        folder, name = self.recipe.parent.resolve(), self.recipe.stem
        where = ["--config-dir", str(folder), "--config-name", name]
        if folder != RECIPES.resolve():  # a file of somebody's own may build on a recipe
            where.append(f"hydra.searchpath=['file://{RECIPES.resolve()}']")
        return [sys.executable, "-m", "verl.trainer.main_ppo", *where, *self.overrides]

    def run(self) -> int:
        """Run it to its end; returns the last step. verl's trainer, and the Ray that it starts,
        end with this process, however that ends.

        Raises what this machine lacks, DataError where a run would continue with other tasks, and
        ToolUnavailable where the trainer fails (it has then said why) or ends early.
        """
        for problem in self.plan.lacking:
            raise problem
        for split, (name, tasks) in self.data.items():
            file = _file(self.out, split)
            fresh = file.with_name(f"{split}.new.parquet")
            write_dataset(tasks, fresh, split=split, source=_short(name))
            others = self.resume and file.exists() and find_tasks(str(file))
            if others and fingerprint(others) != fingerprint(tasks):
                fresh.unlink()
                raise DataError(
                    f"{name} holds other tasks than those that the run began with ({file}): resume "
                    "without naming tasks, or begin in another --out"
                )
            fresh.replace(file)
        ended = self.out / "ended.txt"
        ended.unlink(missing_ok=True)
        variables = {"VERL_FILE_LOGGER_PATH": str(self._metrics_file()), ENDED: str(ended)}
        code = _wait_for(self.command, _environment(variables))
        if code:
            why = "what it printed above says why"
            if ended.exists():
                why = ended.read_text(encoding="utf-8")
            raise ToolUnavailable(f"verl's trainer ended with exit code {code}: {why}")
        reached = _saved(self.config)
        if self.plan.steps is not None and reached < self.plan.steps:
            raise ToolUnavailable(
                f"verl's trainer ended with step {reached} as its last checkpoint, before step "
                f"{self.plan.steps}: what it printed above may say why"
            )
        return reached

    def _metrics_file(self) -> Path:
        file, number = self.out / "metrics.jsonl", 1
        while file.exists():  # verl would write over it
            number += 1
            file = self.out / f"metrics-{number}.jsonl"
        return file


def recipes() -> dict[str, str]:
    """The recipes by name, each with the first sentence of its comment."""
    found = {}
    for file in sorted(RECIPES.glob("*.yaml")):
        if not file.stem.startswith("interlace_"):
            comment = file.read_text(encoding="utf-8").partition("\ndefaults:")[0]
            text = " ".join(line.lstrip("# ") for line in comment.splitlines())
            found[file.stem] = text.partition(". ")[0].partition(": ")[0] + "."
    return found


def find_recipe(name: str) -> Path:
    """A recipe's file, by its name or as a path. Raises UsageError if there is none."""
    file = Path(name)
    if file.suffix in (".yaml", ".yml"):
        if file.is_file():
            return file
        raise UsageError(f"there is no file {name}")
    known = RECIPES / f"{name}.yaml"
    if not known.is_file():
        raise UsageError(f"there is no recipe {name!r}; there are: {', '.join(recipes())}")
    return known


def prepare(
    recipe: Path,
    flags: Mapping[str, Any],
    settings: Sequence[str],
    *,
    resume: bool,
    tell: Callable[[str], None] | None = None,
) -> Launch:
    """A run from the command's flags (those of `interlace train`) and verl's own `settings`, such
    as `algorithm.gamma=1`, which come last. Nothing is written or loaded yet; `tell` is given a
    sentence on rows of tasks that are left out.

    Raises UsageError for what can't be meant, DataError for tasks that can't be read, MissingExtra
    without verl.
    """
    out = Path(flags.get("out") or f"runs/{recipe.stem}").resolve()
    flags = absolute_names(flags, Path.cwd())
    overrides = own_names(recipe)
    # Ray's processes may stand elsewhere, and know no name of ours.
    model = flags.get("model")
    if model is not None and (model in KNOWN or Path(model).is_dir()):
        folder = local_model(model)
        flags = flags if folder is None else {**flags, "model": str(folder.resolve())}
    overrides += [
        _override(key, flags[name])
        for name, keys in _FLAGS.items()
        if name in flags
        for key in keys
    ]
    if "objective" in flags:
        overrides += _objective(flags["objective"])
    data, given = {}, {}
    for flag, (split, key) in _DATA.items():
        if flag in flags:
            name = str(flags[flag])
            data[split] = (name, find_tasks(name, tell=tell, split=split))
            given[key] = len(data[split][1])
            overrides.append(_override(f"data.{key}", _file(out, split)))
    overrides += [
        _override(f"{PLACE}.episodes", out / "episodes"),
        _override("trainer.default_local_dir", out / "checkpoints"),
        _override("hydra.run.dir", out / "hydra"),
        _override("trainer.resume_mode", "auto" if resume else "disable"),
    ]
    overrides += settings
    config = check(recipe, overrides)
    overrides += _absolute_data(config)
    from omegaconf import OmegaConf

    loop = read_settings(OmegaConf.to_container(config.actor_rollout_ref.rollout.custom))
    plan = make_plan(config, loop, given, _saved(config) if resume else 0)
    return Launch(recipe, tuple(overrides), out, config, plan, data, resume)


def _file(out: Path, split: str) -> Path:
    return out / "data" / f"{split}.parquet"


def _short(name: str) -> str:
    """The name that metrics have for tasks: a shape's or a generator's, else the file's own."""
    kind, _, rest = name.partition(":")
    return kind if rest or kind in ADAPTERS else Path(name).stem


def _absolute_data(config: Any) -> list[str]:
    """The recipe's own files of tasks, as seen from anywhere."""
    overrides = []
    for _, key in _DATA.values():
        files = listed(config.data[key])
        if any(not Path(file).expanduser().is_absolute() for file in files):
            whole = ",".join(_quoted(Path(file).expanduser().resolve()) for file in files)
            overrides.append(f"data.{key}=[{whole}]")
    return overrides


def own_names(recipe: Path) -> list[str]:
    """The files of code that a recipe names itself, from its folder."""
    if recipe.parent.resolve() == RECIPES.resolve():
        return []
    own: Any = read_yaml(recipe)
    for key in PLACE.split("."):
        own = own.get(key) if isinstance(own, dict) else None
    names = own if isinstance(own, dict) else {}
    absolute = absolute_names(names, recipe.parent)
    return [
        _override(f"{PLACE}.{key}", value) for key, value in absolute.items() if value != names[key]
    ]


def _override(key: str, value: Any) -> str:
    return f"{key}={_quoted(value) if isinstance(value, str | Path) else value}"


def _quoted(value: str | Path) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _objective(name: str) -> list[str]:
    """One of our objectives in verl's keys. Raises UsageError for one that verl does not know."""
    objective = find_objective(name)
    if name not in OBJECTIVES:
        raise UsageError(
            f"verl's processes know interlace's objectives alone, and {name} is your own: register "
            "its parts with verl, and name them in algorithm.adv_estimator and "
            f"{ACTOR}.policy_loss.loss_mode"
        )
    loss = objective.loss.__name__  # type: ignore[attr-defined]
    advantage = objective.advantage.__name__  # type: ignore[attr-defined]
    low = objective.config.clip_ratio_low or objective.config.clip_ratio
    high = objective.config.clip_ratio_high or objective.config.clip_ratio
    overrides = [
        _override("algorithm.adv_estimator", advantage.removesuffix("_advantage")),
        _override(f"{ACTOR}.policy_loss.loss_mode", _LOSSES.get(loss, loss.removesuffix("_loss"))),
        _override(f"{ACTOR}.loss_agg_mode", objective.loss_agg_mode),
        _override(f"{ACTOR}.loss_scale_factor", "${data.max_response_length}"),
        _override(f"{ACTOR}.clip_ratio_low", low),
        _override(f"{ACTOR}.clip_ratio_high", high),
        _override("algorithm.filter_groups.enable", objective.dynamic_sampling),
    ]
    if objective.dynamic_sampling:
        overrides.append(_override("algorithm.filter_groups.metric", "correct"))
    return overrides


def _saved(config: Any) -> int:
    """The step of the last whole checkpoint; 0 without one."""
    file = Path(config.trainer.default_local_dir) / "latest_checkpointed_iteration.txt"
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return 0


# -- the process ---------------------------------------------------------------------------------


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """The trainer's environment: ours and `more`.

    What of it Ray's processes need is in the job's runtime environment, so that they have it
    too where Ray was started beforehand.
    """
    variables = {**os.environ, **more}
    job: dict[str, Any] = {}
    with suppress(ValueError):
        job = json.loads(variables.get(_JOB, "{}"))
    runtime = job.setdefault("runtime_env", {})
    runtime["env_vars"] = {
        **{name: value for name, value in variables.items() if name.startswith(_TRAVELS)},
        **runtime.get("env_vars", {}),
        **more,
    }
    variables[_JOB] = json.dumps(job)
    variables["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # verl sets some of them as well: its own hold
    return variables


def _wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """A command's exit code. It ends where we are told to end, and where we are killed."""
    with subprocess.Popen(
        command, env=environment, preexec_fn=_ending_with(os.getpid())
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(_LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _ending_with(parent: int) -> Callable[[], None] | None:
    """Run in the new process: the kernel sends it SIGTERM when `parent` dies, killed or not. Ray's
    own processes end with the one that started them.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: a forked process should load nothing

    def ask() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return ask
