"""The options that commands share, each group as one dataclass."""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, TypeVar

import typer

from .completion import formats, models, tools

if TYPE_CHECKING:
    from ...rollout.engines import Sampling
    from ...rollout.limits import Limits
    from ..agent import Agent, AnyTool

__all__ = [
    "Databases",
    "LimitOptions",
    "ModelOptions",
    "OutputOptions",
    "Strategy",
    "command",
    "make_agent",
    "variable",
]

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, which tools, how it samples."""

    layered: ClassVar = True
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            autocompletion=models,
            help="nano (bundled), smollm2 (fetched once), a folder, a Hugging Face id, a server "
            "(http://host:8000/v1#name) or an engine of yours (mine.py:engine).",
        ),
    ] = "nano"
    format: Annotated[
        str | None,
        typer.Option(
            help="How the model asks for tools; without it, what suits the model.",
            autocompletion=formats,
        ),
    ] = None
    tool: Annotated[
        list[str] | None,
        typer.Option(
            help="python, python:jupyter, sql:FILE, search:PATH, mine.py:tool or none; again for "
            "several.",
            autocompletion=tools,
        ),
    ] = None
    no_isolation: Annotated[
        bool, typer.Option("--no-isolation", help="Run the model's Python code with your rights.")
    ] = False
    engine: Annotated[
        str, typer.Option(help="What runs the model here: transformers, or vllm (an extra).")
    ] = "transformers"
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="max_batch=256, dtype=bfloat16; with vllm also its own arguments, such as "
            "tensor_parallel_size=2. Again for several.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(help="For a server whose model's files lie elsewhere: a folder, or an id."),
    ] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    seed: Annotated[int | None, typer.Option(min=0, help="Makes sampling repeatable.")] = None
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="0 is greedy. Default: 0; for rollout: 1."),
    ] = None
    top_p: Annotated[
        float, typer.Option(min=1e-6, max=1, help="Sample from the top tokens of this mass only.")
    ] = 1.0
    top_k: Annotated[
        int, typer.Option(min=0, help="Sample from this many top tokens only; 0: from all.")
    ] = 0


Databases: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--databases",
        help="The folder of the databases that tasks name (BIRD, Spider): DB/DB.sqlite in it.",
    ),
]
Strategy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="Several attempts, one answer: vote@8 (the most frequent), best@4 (as the model "
        "judges), twice@2 (asked again with its answer), or mine.py:strategy.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """How much one question may use. The model is told where a limit comes near."""

    layered: ClassVar = True
    max_turns: Annotated[int, typer.Option(min=1, help="Times the model may speak.")] = 16
    max_calls: Annotated[int, typer.Option(min=0, help="Tool calls that are run.")] = 16
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the response, those of tools included.")
    ] = 4096
    max_tool_tokens: Annotated[
        int,
        typer.Option(min=1, help="Tokens of one call's output; of more, head and tail."),
    ] = 512
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one question.")] = 300.0
    call_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one call.")] = 10.0


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Options of output."""

    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")] = (
        False
    )
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False


def variable(option: str) -> str:
    """The variable of the environment that stands for an option."""
    return f"INTERLACE_{option.upper()}"


def command(function: Callable[..., R]) -> Callable[..., R]:
    """Spread the parameters that are option groups into the options they consist of.

    Those of a group that is `layered` can be set in the environment and in files too (config.py).
    """
    signature = inspect.signature(function)
    groups: dict[str, Any] = {}
    spread: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        group = parameter.annotation
        if isinstance(group, type) and dataclasses.is_dataclass(group):
            groups[name] = group
            inside = inspect.signature(group).parameters
            spread += inside.values()
            if getattr(group, "layered", False):
                for option in inside:
                    told = inside[option].annotation.__metadata__[0]
                    told.envvar, told.show_envvar = variable(option), False
        else:
            spread.append(parameter)
    spread = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in spread]

    @functools.wraps(function)
    def run(**given: Any) -> R:
        for name, kind in groups.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            given[name] = kind(**{field: given.pop(field) for field in fields})
        return function(**given)

    run.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return run


def make_agent(
    model: ModelOptions, limits: LimitOptions, *, temperature: float, **terms: Any
) -> "Agent":
    """The agent that the options describe; `temperature` is the command's default, `terms` what
    `Agent` takes besides (`budget`, `approve`, ...).

    Its model is not loaded yet, but fetched, if need be. Raises UsageError and ModelError.
    """
    from ...rollout.models.files import find_model, is_engine, is_server
    from ..agent import Agent

    names = model.tool or ["python"]
    agent = Agent(
        model.model,
        tools=[_unwalled(name) if model.no_isolation else name for name in names if name != "none"],
        format=model.format,
        limits=_limits(limits),
        sampling=_sampling(model, temperature),
        device=model.device,
        engine=model.engine,
        engine_options=_engine_options(model.engine_option or []),
        tokenizer=model.tokenizer,
        **terms,
    )
    # Fetching may take long: here, before there is an event loop, Ctrl-C ends it at once.
    if not (is_server(model.model) or is_engine(model.model)):
        find_model(model.model)
    return agent


def _engine_options(said: list[str]) -> dict[str, Any]:
    """Values are JSON (`2`, `true`, `0.9`), or else the text that they are."""
    from ...tools.errors import UsageError

    found: dict[str, Any] = {}
    for each in said:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--engine-option {each}: write NAME=VALUE, such as max_batch=256")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _unwalled(name: str) -> "AnyTool":
    """The tool of that name; if it is Python, without walls."""
    from ...tools import PythonTool

    kind, _, backend = name.partition(":")
    return PythonTool(backend or "sandbox", isolation="none") if kind == "python" else name


def _limits(options: LimitOptions) -> "Limits":
    from ...rollout.limits import Limits

    return Limits(
        turns=options.max_turns,
        calls=options.max_calls,
        response_tokens=options.max_tokens,
        tool_output_tokens=options.max_tool_tokens,
        call_seconds=options.call_timeout,
        seconds=options.timeout,
    )


def _sampling(options: ModelOptions, temperature: float) -> "Sampling":
    from ...rollout.engines import Sampling

    return Sampling(
        temperature=temperature if options.temperature is None else options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        seed=options.seed,
    )
