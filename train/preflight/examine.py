"""Checks of a training run before it starts: whether it fits and nothing is missing."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from ...rollout.formats import Encoder, Format, find_format
from ...rollout.formats.sample import sample_tools
from ...rollout.models.files import local_model
from ...rollout.models.load import default_format
from ...rollout.tokenizer import Tokenizer
from ...tools.errors import DataError, InterlaceError, MissingExtra, ModelError
from ..config import TrainConfig, read_config, read_yaml
from ..data.sources import find_tasks
from ..verl.compose import check
from ..verl.launch import find_recipe
from ..verl.plan import Plan, make_plan
from ..verl.settings import PLACE, LoopSettings, read_settings
from .finding import Finding, where
from .memory import Estimate, estimate_local, estimate_verl, vllm_room
from .model_shapes import find_shape
from .reachability import hub_has, ray_nodes
from .trial_run import Trial

__all__ = ["TESTED", "Examination", "examine"]

TESTED: Mapping[str, Mapping[str, str]] = {
    "local": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
    "verl": {
        "verl": "0.9.1",
        "torch": "2.13.0",
        "transformers": "5.9.0",
        "ray": "2.60.0",
        "tensordict": "0.10.0",
        "TransferQueue": "0.1.11",
    },
}
"""The versions that our tests ran with, on a CPU. vLLM with verl was never run by us: verl 0.9.1
asks for vllm 0.24.0 and torch 2.11.0."""
_ASKED_FOR = {"vllm": "0.24.0", "torch": "2.11.0"}


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was found, and the estimate where one could be made."""

    engine: str
    """`local` or `verl`."""
    findings: list[Finding]
    estimate: Estimate | None
    python: bool
    """Whether the run needs the Python sandbox."""
    trial: Trial | None = None
    """What can be tried of it on this machine (`train/preflight/trial_run.py`); None: nothing."""


def examine(name: str, card: float | None) -> Examination:
    """Look at a configuration of `interlace train`: a file for this machine's trainer, or a recipe
    for verl. `card` is the memory of one card, GB; None: none was found or named.

    Never raises for what is wrong with it: that is a finding.
    """
    findings: list[Finding] = []
    engine = "verl" if _is_verls(name) else "local"
    try:
        run = _verls_run(name) if engine == "verl" else _local_run(name)
    except InterlaceError as error:
        findings.append(Finding("configuration", False, str(error), error.exit_code))
        return Examination(engine, findings, None, python=False)
    findings.append(Finding("configuration", True, f"{run.file} makes sense"))
    findings += _versions(engine)
    estimate = _memory(run, card, findings)
    findings += _model(run)
    findings += run.beside()
    return Examination(engine, findings, estimate, python=run.python, trial=run.trial(card))


@dataclass(frozen=True, slots=True)
class _Run:
    """The settings that both kinds of configuration have."""

    file: Path
    model: str
    model_key: str
    format: Format | None
    python: bool
    estimate: Callable[[Any, float | None], Estimate]
    beside: Callable[[], Iterator[Finding]]
    """What else it needs."""
    trial: Callable[[float | None], Trial | None]
    room: Callable[[Any, float], tuple[int, str | None]] | None = None


def _is_verls(name: str) -> bool:
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        return True
    try:
        return "defaults" in read_yaml(file)
    except InterlaceError:
        return False  # reading it as the local trainer's says what is wrong


def _local_run(name: str) -> _Run:
    config = read_config(Path(name), {}).config
    tools = config.tools
    return _Run(
        file=Path(name),
        model=config.model,
        model_key="model",
        format=config.to_format(),
        python=tools is None or any(str(tool).startswith("python") for tool in tools),
        estimate=lambda shape, card: estimate_local(config, shape),
        beside=lambda: chain(_tasks(config, Path(name)), _disk(config, Path(name))),
        trial=lambda card: _local_trial(config, Path(name)),
    )


def _verls_run(name: str) -> _Run:
    file = find_recipe(name)
    config = check(file)
    settings = read_settings(_plain(config.actor_rollout_ref.rollout.custom))
    plan = make_plan(config, settings, {}, 0)
    return _Run(
        file=file,
        model=str(config.actor_rollout_ref.model.path),
        model_key="actor_rollout_ref.model.path",
        format=find_format(settings.format),
        python=settings.tools is None or any(t.startswith("python") for t in settings.tools),
        # Without a card the share that vLLM takes of it can't be said.
        estimate=lambda shape, card: estimate_verl(config, shape, card or 0.0),
        room=lambda shape, card: vllm_room(config, shape, card),
        beside=lambda: chain(_planned(plan), _cluster(config, file)),
        trial=lambda card: _verls_trial(config, settings, file, card),
    )


def _plain(config: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config)


def _versions(engine: str) -> Iterator[Finding]:
    missing = []
    for package, tested in TESTED[engine].items():
        try:
            here = version(package).partition("+")[0]
        except PackageNotFoundError:
            missing.append(package)
            continue
        asked = _ASKED_FOR.get(package) if engine == "verl" else None
        ok = here in (tested, asked)
        text = f"{here}" if ok else f"{here}; our tests ran with {tested}"
        yield Finding(package, True if ok else None, text)
    if missing:
        extra = "verl" if engine == "verl" else "train"
        wanted = MissingExtra(", ".join(missing), extra)
        yield Finding("packages", False, str(wanted), wanted.exit_code)


def _memory(run: _Run, card: float | None, findings: list[Finding]) -> Estimate | None:
    try:
        shape = find_shape(run.model)
    except ModelError as error:
        findings.append(Finding("memory", None, str(error)))
        return None
    estimate = run.estimate(shape, card)
    if card is None:
        text = "no card was found: name one with --gpu 24GB to see whether it fits"
        findings.append(Finding("memory", None, text))
        return estimate
    problem = estimate.problem(card)
    if problem is None:
        text = f"about {estimate.total(estimate.peak):.1f} GB of {card:g} while {estimate.peak}"
    else:
        text = problem + _changes(run.file, problem)
    findings.append(Finding("memory", problem is None, text))
    if run.room is not None:
        episodes, problem = run.room(shape, card)
        text = f"vLLM has room for about {episodes} episodes of full length at once"
        findings.append(Finding("vLLM's cache", problem is None, problem or text))
    return estimate


def _model(run: _Run) -> Iterator[Finding]:
    at = f"{run.model_key}={run.model}{where(run.file, run.model_key)}"
    try:
        folder = local_model(run.model)
    except ModelError as error:
        yield Finding("model", False, f"{at}: {error}", error.exit_code)
        return
    if folder is None:
        ok, text = hub_has(run.model)
        yield Finding("model", ok, f"{at} is not on this machine; {text}", ModelError.exit_code)
        return
    yield Finding("model", True, f"{run.model} is on this machine")
    try:
        tokenizer = Tokenizer.load(folder)
        format = run.format or find_format(default_format(run.model, tokenizer))
        encoder = Encoder(format, tokenizer, sample_tools(format))
    except InterlaceError as error:
        yield Finding("tokenizer", False, f"{at}: {error}", error.exit_code)
        return
    pieces = [
        f"{stop!r} is {len(tokenizer.encode_continuation(stop))} tokens" for stop in format.stop
    ]
    text = f"{format.name}: {'; '.join(pieces) or 'no stop strings'}"
    if not tokenizer.eos_ids:
        yield Finding("tokenizer", False, f"{at}: no token ends a turn", ModelError.exit_code)
    elif tokenizer.turn_end is not None and tokenizer.turn_end not in tokenizer.named_eos_ids:
        end = tokenizer.token(tokenizer.turn_end)
        named = ", ".join(map(tokenizer.token, sorted(tokenizer.named_eos_ids))) or "nothing"
        yield Finding(
            "tokenizer",
            None,
            f"{text}; the template ends a turn with {end}, the model's files with {named}: here "
            "both end it",
        )
    elif encoder.template.plain:
        yield Finding("tokenizer", None, f"{text}; no chat template: a plain layout is used")
    else:
        yield Finding("tokenizer", True, text)


def _tasks(config: TrainConfig, file: Path) -> Iterator[Finding]:
    for name in ("tasks", "held_out"):
        source = getattr(config, name)
        if source is None:
            continue
        try:
            find_tasks(source, limit=1, databases=config.databases)
        except InterlaceError as error:
            text = f"{name}={source}{where(file, name)}: {error}"
            yield Finding(name, False, text, error.exit_code)
        else:
            yield Finding(name, True, source)


def _disk(config: TrainConfig, file: Path) -> Iterator[Finding]:
    """The room on the disk for the run's checkpoints: for a while there are two, the last one and
    the one being written.
    """
    try:
        shape = find_shape(config.model)
    except ModelError:
        return  # a finding of its own
    whole = config.precision == "float32" or not config.lora_rank
    trained = shape.adapters(config.lora_rank) if config.lora_rank else shape.parameters
    # Weights, and of what is trained AdamW's two moments; adapters once more by themselves.
    size = shape.parameters * (4 if whole else 2) + trained * (12 if config.lora_rank else 8)
    folder = Path(config.out).absolute()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = (
        f"two checkpoints of {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in "
        f"out={config.out}{where(file, 'out')}"
    )
    yield Finding("disk", free > 2 * size, text, DataError.exit_code)


def _planned(plan: Plan) -> Iterator[Finding]:
    """The first step, and what this machine lacks for it: the run may be meant for another."""
    for line in plan.lines:
        what, _, text = line.partition(": ")
        yield Finding(what if text else "then", True, text or line)
    for problem in plan.lacking:
        yield Finding("lacking here", None, str(problem))


def _cluster(config: Any, file: Path) -> Iterator[Finding]:
    """Ray: where it runs, whether it has the nodes that are asked for."""
    trainer = config.trainer
    given = config.ray_kwargs.get("ray_init", {}).get("address")
    address = given or os.environ.get("RAY_ADDRESS")
    name = "ray_kwargs.ray_init.address" if given else "RAY_ADDRESS"
    nodes = f"trainer.nnodes={trainer.nnodes}{where(file, 'trainer.nnodes')}"
    if address is None or address == "local":
        if trainer.nnodes == 1:
            yield Finding("Ray", True, "verl starts it on this machine: RAY_ADDRESS is not set")
            return
        text = (
            f"{nodes}, but RAY_ADDRESS is not set: `ray start --head` on one node, `ray start "
            "--address=HEAD:6379` on the others, and RAY_ADDRESS=HEAD:6379 for this command"
        )
        yield Finding("Ray", False, text)
        return
    try:
        found = ray_nodes(address)
    except InterlaceError as error:
        yield Finding("Ray", False, f"{name}={address}: {error}", error.exit_code)
        return
    cards = trainer.n_gpus_per_node
    fit = [node for node in found if node.cards >= cards]
    text = f"{name}={address}: {len(found)} nodes, {len(fit)} of them with {cards} cards or more"
    ok = len(fit) >= trainer.nnodes
    if not ok:
        per = f"trainer.n_gpus_per_node={cards}{where(file, 'trainer.n_gpus_per_node')}"
        text += f"; {nodes} and {per} ask for more: start Ray on the others, or lower them"
    yield Finding("Ray", ok, text)


def _local_trial(config: TrainConfig, file: Path) -> Trial:
    try:
        find_tasks(str(config.tasks), limit=1, databases=config.databases)
    except InterlaceError:  # a finding of its own
        config = config.model_copy(update={"tasks": "arithmetic:train"})
    return Trial(config, file)


def _verls_trial(
    config: Any, settings: LoopSettings, file: Path, card: float | None
) -> Trial | None:
    """The trial that one card allows: vLLM if it is installed, and our own trainer on verl's
    numbers. With adapters if all weights and their moments would not fit together, since verl
    splits them or keeps them on the host. None if the model is unknown or does not fit even so.
    """
    whole = config.actor_rollout_ref
    actor, rollout, model = whole.actor, whole.rollout, whole.model
    mixed = actor.fsdp_config.get("mixed_precision") or {}
    dtype = mixed.get("param_dtype", "bf16")
    tried = TrainConfig(
        model=str(model.path),
        format=settings.format,
        tools=[*(settings.tools or ["python"])],
        precision="bfloat16" if dtype in ("bf16", "bfloat16") else "float32",
        lora_rank=model.lora_rank,
        gradient_checkpointing=bool(model.enable_gradient_checkpointing),
        max_turns=settings.max_turns,
        max_calls=settings.max_calls,
        max_tool_tokens=settings.max_tool_tokens,
        call_timeout=settings.call_timeout,
        max_tokens=rollout.response_length,
        micro_tokens=actor.ppo_max_token_len_per_gpu,
    )
    note = ""
    try:
        shape = find_shape(tried.model)
    except ModelError:
        return None
    if card is not None and not tried.lora_rank and estimate_local(tried, shape).problem(card):
        tried = tried.model_copy(update={"lora_rank": 8})
        note = ", with adapters of rank 8: all weights at once would not fit without verl"
    if card is not None and estimate_local(tried, shape).problem(card):
        return None
    vllm = None
    if find_spec("vllm") is not None and card is not None:
        vllm = {"gpu_memory_utilization": rollout.gpu_memory_utilization}
    keys = {
        "model": "actor_rollout_ref.model.path",
        "micro_tokens": "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
        "concurrency": "actor_rollout_ref.rollout.gpu_memory_utilization",
        "precision": "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    }
    return Trial(tried, file, keys, vllm, note)


def _changes(file: Path, text: str) -> str:
    """The line in the file of a setting that the text names, or "" if it is not in the file."""
    words = [word.rstrip(",:;").partition("=")[0] for word in text.split()]
    places = ("actor_rollout_ref.", "data.", "critic.", PLACE)
    return where(file, *(word for word in words if word.startswith(places) or "." not in word))
