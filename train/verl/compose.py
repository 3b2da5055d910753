"""A run's whole configuration, put together as verl's trainer would, and refused where it can't be
meant: before anything is loaded.
"""

import copy
import importlib.util
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path
from typing import Any

from ...tools.errors import MissingExtra, UsageError
from .rules import ACTOR, ROLLOUT, has_critic, problems
from .settings import read_settings

__all__ = ["RECIPES", "check", "compose"]

RECIPES = Path(__file__).parent / "recipes"

# Where verl lets anybody write keys of their own.
_FREE = (
    f"{ROLLOUT}.custom",
    "ray_kwargs.ray_init",
    "trainer.v1.sampler.sampler_kwargs",
    f"{ACTOR}.policy_loss.rollout_correction",
    f"{ACTOR}.fsdp_config.mixed_precision",
    "actor_rollout_ref.ref.fsdp_config.mixed_precision",
    "critic.fsdp.mixed_precision",
)


def compose(recipe: Path, overrides: Sequence[str] = ()) -> Any:
    """The whole configuration, an OmegaConf DictConfig, as verl's trainer would see it.

    Raises MissingExtra without verl, UsageError where Hydra can't put it together.
    """
    theirs = f"hydra.searchpath=[pkg://verl.trainer.config,'file://{RECIPES.resolve()}']"
    own = [each for each in overrides if not each.startswith("hydra.")]  # which are Hydra's alone
    return _compose(recipe.parent.resolve(), recipe.stem, [theirs, *own])


def check(recipe: Path, overrides: Sequence[str] = ()) -> Any:
    """The same, once everything in it is known to verl and to us, and goes together.

    Raises UsageError, which names the key: verl ignores a key that it does not know, and asks much
    of the rest only once the models are loaded.
    """
    config = compose(recipe, overrides)
    _refuse_unknown(config, _verls_own(), "")
    from omegaconf import OmegaConf

    settings = read_settings(OmegaConf.to_container(config.actor_rollout_ref.rollout.custom))
    for problem in problems(config, settings):
        raise UsageError(problem)
    _as_verl_reads_it(config)
    return config


@cache
def _verls_own() -> Any:
    import verl.trainer.config

    return _compose(Path(verl.trainer.config.__file__).parent, "ppo_trainer", [])


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
    from verl.trainer.ppo.utils import need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    whole, critic = copy.deepcopy(config), has_critic(config)
    whole.critic.model = None  # verl would fetch it
    if importlib.util.find_spec("vllm") is None:  # which verl asks whether it knows the rank
        whole.actor_rollout_ref.model.lora_rank = 0
    parts = {
        "algorithm": whole.algorithm,
        ACTOR: whole.actor_rollout_ref.actor,
        ROLLOUT: whole.actor_rollout_ref.rollout,
        "critic": whole.critic if critic else None,
    }
    read: dict[str, Callable[[], Any]] = {
        name: partial(omega_conf_to_dataclass, part) for name, part in parts.items() if part
    }
    read["the configuration"] = lambda: validate_config(whole, need_reference_policy(whole), critic)
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
