"""What can be known of a training run before it runs: whether it fits and all is there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..rollout.formats import FORMATS, Encoder
from ..rollout.formats.sample import sample_tools
from ..rollout.model_files import local_model
from ..rollout.models import default_format
from ..rollout.tokenizer import Tokenizer
from ..tools.errors import InterlaceError, MissingExtra, ModelError
from .config import read_config, read_yaml
from .memory import Estimate, estimate_local, estimate_verl, vllm_room
from .shapes import find_shape
from .verl.launch import check, find_recipe
from .verl.settings import PLACE, read_settings

__all__ = ["TESTED", "Examination", "Finding", "examine", "line_of"]

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
class Finding:
    """One thing looked at. `ok` is None where it only may be wrong."""

    what: str
    ok: bool | None
    text: str
    exit_code: int = 2


@dataclass(frozen=True, slots=True)
class Examination:
    """All that was found, and the estimate where one could be made."""

    engine: str
    """`local` or `verl`."""
    findings: list[Finding]
    estimate: Estimate | None
    python: bool
    """Whether the run needs the Python sandbox."""


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
    return Examination(engine, findings, estimate, python=run.python)


@dataclass(frozen=True, slots=True)
class _Run:
    """What both kinds of configuration say."""

    file: Path
    model: str
    model_key: str
    format: str | None
    python: bool
    estimate: Callable[[Any, float | None], Estimate]
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
        format=config.format,
        python=tools is None or any(tool.startswith("python") for tool in tools),
        estimate=lambda shape, card: estimate_local(config, shape),
    )


def _verls_run(name: str) -> _Run:
    file = find_recipe(name)
    config = check(file)
    settings = read_settings(_plain(config.actor_rollout_ref.rollout.custom))
    return _Run(
        file=file,
        model=str(config.actor_rollout_ref.model.path),
        model_key="actor_rollout_ref.model.path",
        format=settings.format,
        python=settings.tools is None or any(t.startswith("python") for t in settings.tools),
        # Without a card the share that vLLM takes of it can't be said.
        estimate=lambda shape, card: estimate_verl(config, shape, card or 0.0),
        room=lambda shape, card: vllm_room(config, shape, card),
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
        text = problem + _where(run.file, problem)
    findings.append(Finding("memory", problem is None, text))
    if run.room is not None:
        episodes, problem = run.room(shape, card)
        text = f"vLLM has room for about {episodes} episodes of full length at once"
        findings.append(Finding("vLLM's cache", problem is None, problem or text))
    return estimate


def _model(run: _Run) -> Iterator[Finding]:
    where = f"{run.model_key}={run.model}{_where(run.file, run.model_key)}"
    try:
        folder = local_model(run.model)
    except ModelError as error:
        yield Finding("model", False, f"{where}: {error}", error.exit_code)
        return
    if folder is None:
        text = f"{where} is not on this machine yet: it is fetched when the run begins"
        yield Finding("model", None, text)
        return
    yield Finding("model", True, f"{run.model} is on this machine")
    try:
        tokenizer = Tokenizer.load(folder)
        name = run.format or default_format(run.model, tokenizer)
        encoder = Encoder(FORMATS[name], tokenizer, sample_tools(name))
    except InterlaceError as error:
        yield Finding("tokenizer", False, f"{where}: {error}", error.exit_code)
        return
    pieces = [
        f"{stop!r} is {len(tokenizer.encode_continuation(stop))} tokens"
        for stop in FORMATS[name].stop
    ]
    text = f"{name}: {'; '.join(pieces) or 'no stop strings'}"
    if not tokenizer.eos_ids:
        yield Finding("tokenizer", False, f"{where}: no token ends a turn", ModelError.exit_code)
    elif encoder.template.plain:
        yield Finding("tokenizer", None, f"{text}; no chat template: a plain layout is used")
    else:
        yield Finding("tokenizer", True, text)


def _where(file: Path, text: str) -> str:
    """Where the setting that a text names stands in the file, or that it is a default."""
    for key in [word.rstrip(",:;") for word in text.split()]:
        if key.startswith(("actor_rollout_ref.", "data.", "critic.", PLACE)) or "." not in key:
            line = line_of(file, key.partition("=")[0])
            if line is not None:
                return f" ({file.name}, line {line})"
    return ""


def line_of(file: Path, key: str) -> int | None:
    """The line, from 1, on which a setting such as `data.seed` stands in a YAML file."""
    import yaml

    try:
        node = yaml.compose(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    for part in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        found = [(name, value) for name, value in node.value if name.value == part]
        if not found:
            return None
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line
