"""Starting verl's trainer: a recipe, what is said otherwise, and a check before anything runs."""

import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from ...tools.errors import MissingExtra, ToolUnavailable, UsageError
from ..objectives import find_objective
from ..rewards import Checker
from ..sources import find_tasks
from .data import write_dataset
from .settings import PLACE, LoopSettings, read_settings
from .team import ADVANTAGE, SAMPLER, find_attempt, find_role_rewards

__all__ = ["RECIPES", "Launch", "check", "compose", "find_recipe", "prepare", "recipes"]

RECIPES = Path(__file__).parent / "recipes"

_ROLLOUT = "actor_rollout_ref.rollout"
_ACTOR = "actor_rollout_ref.actor"
_FLAGS = {
    "model": ("actor_rollout_ref.model.path",),
    "reward": (f"{PLACE}.reward",),
    "steps": ("trainer.total_training_steps",),
    "learning_rate": (f"{_ACTOR}.optim.lr",),
    "lora_rank": ("actor_rollout_ref.model.lora_rank",),
    "device": ("trainer.device",),
    "seed": ("data.seed", f"{_ACTOR}.data_loader_seed", f"{_ROLLOUT}.seed"),
}
"""The command's flags, and verl's keys for them."""
_LOSSES = {"clipped_loss": "vanilla", "reinforce_loss": "gpg"}
"""Where verl has a loss of ours under another name."""

# Where verl lets anybody write keys of their own.
_FREE = (
    f"{_ROLLOUT}.custom",
    "ray_kwargs.ray_init",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "critic.fsdp.mixed_precision",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """One run of verl's trainer."""

    recipe: Path
    overrides: tuple[str, ...]
    out: Path
    data: Mapping[str, str]
    """Tasks by name, for each split that is to be written as a file for verl."""

    @property
    def command(self) -> list[str]:
        """What anybody could have typed."""
        folder, name = self.recipe.parent.resolve(), self.recipe.stem
        where = ["--config-dir", str(folder), "--config-name", name]
        if folder != RECIPES.resolve():  # a file of somebody's own may build on a recipe
            where.append(f"hydra.searchpath=['file://{RECIPES.resolve()}']")
        return [sys.executable, "-m", "verl.trainer.main_ppo", *where, *self.overrides]

    def run(self) -> None:
        """Run it to its end. Raises DataError and UsageError for the tasks, ToolUnavailable where
        the trainer fails; it has then said why.
        """
        for split, name in self.data.items():
            write_dataset(find_tasks(name), _file(self.out, split), split=split, source=name)
        file, number = self.out / "metrics.jsonl", 1
        while file.exists():  # verl would write over it
            number += 1
            file = self.out / f"metrics-{number}.jsonl"
        environment = {"VERL_FILE_LOGGER_PATH": str(file), **os.environ}
        code = subprocess.run(self.command, env=environment, check=False).returncode
        if code:
            raise ToolUnavailable(
                f"verl's trainer ended with exit code {code}: what it printed above says why"
            )


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
    """A recipe's file, by its name or as a path. Raises UsageError where there is none."""
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
    recipe: Path, flags: Mapping[str, Any], settings: Sequence[str], *, resume: bool
) -> Launch:
    """A run from the command's flags (those of `interlace train`) and verl's own `settings`, such
    as `algorithm.gamma=1`, which come last. Nothing is written yet. Raises UsageError.
    """
    out = Path(flags.get("out") or f"runs/{recipe.stem}").resolve()
    overrides = [
        _override(key, flags[name])
        for name, keys in _FLAGS.items()
        if name in flags
        for key in keys
    ]
    if "objective" in flags:
        overrides += _objective(flags["objective"])
    data = {}
    for name, split, key in (("tasks", "train", "train_files"), ("held_out", "test", "val_files")):
        if name in flags:
            data[split] = str(flags[name])
            overrides.append(_override(f"data.{key}", _file(out, split)))
    overrides += [
        _override(f"{PLACE}.episodes", out / "episodes"),
        _override("trainer.default_local_dir", out / "checkpoints"),
        _override("hydra.run.dir", out / "hydra"),
        _override("trainer.resume_mode", "auto" if resume else "disable"),
    ]
    return Launch(recipe, (*overrides, *settings), out, data)


def _file(out: Path, split: str) -> Path:
    return out / "data" / f"{split}.parquet"


def _override(key: str, value: Any) -> str:
    if isinstance(value, str | Path):
        escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"{key}='{escaped}'"
    return f"{key}={value}"


def _objective(name: str) -> list[str]:
    """One of our objectives in verl's keys. Raises UsageError for one that does not exist."""
    objective = find_objective(name)
    loss = objective.loss.__name__  # type: ignore[attr-defined]
    advantage = objective.advantage.__name__  # type: ignore[attr-defined]
    low = objective.config.clip_ratio_low or objective.config.clip_ratio
    high = objective.config.clip_ratio_high or objective.config.clip_ratio
    overrides = [
        _override("algorithm.adv_estimator", advantage.removesuffix("_advantage")),
        _override(f"{_ACTOR}.policy_loss.loss_mode", _LOSSES.get(loss, loss.removesuffix("_loss"))),
        _override(f"{_ACTOR}.loss_agg_mode", objective.loss_agg_mode),
        _override(f"{_ACTOR}.clip_ratio_low", low),
        _override(f"{_ACTOR}.clip_ratio_high", high),
        _override("algorithm.filter_groups.enable", objective.dynamic_sampling),
    ]
    if objective.dynamic_sampling:
        overrides.append(_override("algorithm.filter_groups.metric", "correct"))
    return overrides


# -- before anything runs ------------------------------------------------------------------------


def compose(recipe: Path, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration, an OmegaConf DictConfig, as verl's trainer would see it.

    Raises MissingExtra without verl, UsageError where Hydra can't put it together.
    """
    theirs = f"hydra.searchpath=[pkg://verl.trainer.config,'file://{RECIPES.resolve()}']"
    own = [each for each in overrides if not each.startswith("hydra.")]  # which are Hydra's alone
    return _compose(recipe.parent.resolve(), recipe.stem, [theirs, *own])


def check(recipe: Path, overrides: Sequence[str] = ()) -> Any:
    """The same, once everything in it is known to verl and to us.

    Raises UsageError, which names the key: verl ignores a key that it does not know.
    """
    config = compose(recipe, overrides)
    import verl.trainer.config

    base = _compose(Path(verl.trainer.config.__file__).parent, "ppo_trainer", [])
    _refuse_unknown(config, base, "")
    from omegaconf import OmegaConf

    settings = read_settings(OmegaConf.to_container(config.actor_rollout_ref.rollout.custom))
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    room = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    tokens = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
    if actor.use_dynamic_bsz and tokens < room:
        raise UsageError(
            f"{_ACTOR}.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu}: an episode may "
            f"have {room} tokens, so set it to that at least, or split episodes over several cards "
            f"with {_ACTOR}.ulysses_sequence_parallel_size"
        )
    if settings.tool_output_tokens >= rollout.response_length:
        raise UsageError(
            f"{PLACE}.tool_output_tokens={settings.tool_output_tokens} leaves no room to answer "
            f"within data.max_response_length={rollout.response_length}"
        )
    _check_team(config, settings)
    _as_verl_reads_it(config)
    return config


def _check_team(config: Any, settings: LoopSettings) -> None:
    """A team wants our estimator and our sampler, and they a team. Raises UsageError."""
    algorithm, v1 = config.algorithm, config.trainer.v1
    sampler = v1.sampler.custom_sampler
    path, name = SAMPLER
    found = {
        "algorithm.adv_estimator": (algorithm.adv_estimator, ADVANTAGE),
        "trainer.v1.sampler.custom_sampler.path": (sampler.path, path),
        "trainer.v1.sampler.custom_sampler.name": (sampler.name, name),
        "trainer.v1.trainer_mode": (v1.trainer_mode, "sync"),
        "algorithm.use_kl_in_reward": (algorithm.use_kl_in_reward, False),
        "algorithm.filter_groups.enable": (
            bool((algorithm.filter_groups or {}).get("enable")),
            False,
        ),
    }
    if settings.attempt is None:
        if algorithm.adv_estimator == ADVANTAGE:
            raise UsageError(
                f"algorithm.adv_estimator={ADVANTAGE} is for teams: set {PLACE}.attempt"
            )
        return
    for key, (given, wanted) in found.items():
        if given != wanted:
            raise UsageError(
                f"{PLACE}.attempt wants {key}={wanted}, not {given}: put interlace_team behind the "
                "recipe in your file's defaults"
            )
    find_attempt(settings.attempt)
    find_role_rewards(settings.rewards, Checker())


def _refuse_unknown(config: Any, base: Any, path: str) -> None:
    from omegaconf import DictConfig, OmegaConf

    for key in config:
        at = f"{path}.{key}" if path else str(key)
        if at in _FREE:
            continue
        if key not in base.keys():  # noqa: SIM118  # `in` does not see what is still to be set
            raise UsageError(
                f"verl {_version()} knows no {at}: look for it in its ppo_trainer.yaml"
            )
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        theirs = None if OmegaConf.is_missing(base, key) else base._get_node(key)
        if isinstance(config[key], DictConfig) and isinstance(theirs, DictConfig) and len(theirs):
            _refuse_unknown(config[key], theirs, at)


def _as_verl_reads_it(config: Any) -> None:
    """Let verl make its own dataclasses of the parts and check them. Raises UsageError."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    whole = copy.deepcopy(config)
    whole.critic.model = None  # verl would fetch it
    if importlib.util.find_spec("vllm") is None:  # which verl asks whether it knows the rank
        whole.actor_rollout_ref.model.lora_rank = 0
    parts = {
        "algorithm": whole.algorithm,
        _ACTOR: whole.actor_rollout_ref.actor,
        _ROLLOUT: whole.actor_rollout_ref.rollout,
        "critic": whole.critic if need_critic(whole) else None,
    }
    read: dict[str, Callable[[], Any]] = {
        name: partial(omega_conf_to_dataclass, part) for name, part in parts.items() if part
    }
    read["the configuration"] = lambda: validate_config(
        whole, need_reference_policy(whole), need_critic(whole)
    )
    for name, reading in read.items():
        try:
            with redirect_stdout(StringIO()):
                reading()
        except Exception as error:  # whatever verl's checks raise: ValueError, assertions, ...
            raise UsageError(f"verl refuses {name}: {' '.join(str(error).split())}") from error


def _version() -> str:
    from importlib.metadata import version

    return version("verl")


def _compose(folder: Path, name: str, overrides: Sequence[str]) -> Any:
    if importlib.util.find_spec("verl") is None:
        raise MissingExtra("training with verl", "verl")
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with hydra.initialize_config_dir(str(folder), version_base=None):
            return hydra.compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(
            f"the configuration makes no sense: {' '.join(str(error).split())}"
        ) from error
