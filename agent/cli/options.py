"""The options that commands share, each group as one dataclass, and how a command is declared.

Light: what a command does is loaded when it runs (`actions/`), so that `--help` is quick.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import typer
from typer.core import TyperCommand

from .completion import formats, models, tools
from .exits import exit_codes

__all__ = [
    "LAYERED",
    "CliCommand",
    "Databases",
    "GuardOptions",
    "LimitOptions",
    "ModelOptions",
    "OutputOptions",
    "ReportOptions",
    "Strategy",
    "TeamOptions",
    "command",
    "folder_file",
    "own_file",
    "variable",
]

LAYERED = ("run", "chat", "rollout", "eval", "coldstart")
"""The commands whose model, limits and approvals can also be set in files and the environment; a
section of such a file has the name of one."""


def own_file() -> Path:
    """The user's settings: `$XDG_CONFIG_HOME/interlace/config.toml`, else below `~/.config`."""
    # Not tools.files.config_dir: it takes all the tools along.
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "interlace" / "config.toml"


def folder_file() -> Path:
    """The settings of the working directory: `interlace.toml`."""
    return Path("interlace.toml")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, its tools and how it samples."""

    panel: ClassVar = "Model and sampling"
    layered: ClassVar = True
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            autocompletion=models,
            help="Model: nano (bundled), smollm2 (fetched once), a folder, a Hugging Face id, a "
            "server (http://host:8000/v1#name) or an engine of yours (mine.py:engine).",
        ),
    ] = "nano"
    format: Annotated[
        str | None,
        typer.Option(
            help="Format in which the model calls tools. Default: the one that suits the model.",
            autocompletion=formats,
            show_default=False,
        ),
    ] = None
    tool: Annotated[
        list[str] | None,
        typer.Option(
            help="Tool: python, python:jupyter, sql:FILE, search:PATH, mine.py:tool or none. "
            "Repeat for several.",
            autocompletion=tools,
        ),
    ] = None
    system: Annotated[
        str, typer.Option(help="System prompt in your own words; the format adds what it needs.")
    ] = ""
    no_isolation: Annotated[
        bool,
        typer.Option("--no-isolation", help="Run the model's Python code with your own rights."),
    ] = False
    engine: Annotated[
        str, typer.Option(help="Inference engine: transformers, or vllm (needs that extra).")
    ] = "transformers"
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Engine setting: max_batch=256, dtype=bfloat16; with vllm also vLLM's own "
            "arguments, such as tensor_parallel_size=2; for a server, a field of its requests. "
            "Repeat for several.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer of a server's model, if not found: a folder or an id."),
    ] = None
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampling.")] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="Sampling temperature; 0 is greedy. Default: 0, or 1 for several attempts.",
            show_default=False,
        ),
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
        help="Folder of the databases that tasks name (BIRD, Spider): DB/DB.sqlite in it.",
    ),
]
Strategy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="Several attempts, one answer: vote@8 (the most frequent), tree@8 (the same, of a "
        "tree that branches at results), best@4 (the one the model rates best), twice@2 (asked "
        "again with its answer), or mine.py:strategy.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits of one question. The model is told when one is near."""

    panel: ClassVar = "Limits of one question"
    layered: ClassVar = True
    max_turns: Annotated[int, typer.Option(min=1, help="Turns of the model.")] = 16
    max_calls: Annotated[int, typer.Option(min=0, help="Tool calls.")] = 16
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the response, tool output included.")
    ] = 4096
    max_tool_tokens: Annotated[
        int,
        typer.Option(min=1, help="Tokens of one call's output; longer output loses its middle."),
    ] = 512
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one question.")] = 300.0
    call_timeout: Annotated[float, typer.Option(min=0.001, help="Seconds for one call.")] = 10.0


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """Approval of tool calls, and the budget of all questions together."""

    panel: ClassVar = "Approval and budget"
    layered: ClassVar = True
    approve: Annotated[
        list[str] | None,
        typer.Option(
            help="Approval of tool calls: allow, ask or deny; a rule such as 'deny python open'; "
            "or a file of rules. Repeat for several: the first that fits decides."
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(help="Budget of all questions together: tokens=5000,calls=20,seconds=60."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TeamOptions:
    """The team that answers, if one does, and its size."""

    panel: ClassVar = "Team"
    team: Annotated[
        bool, typer.Option("--team", help="Let a CEO and its experts answer, not one agent.")
    ] = False
    experts: Annotated[int, typer.Option(min=2, help="Largest number of experts.")] = 4
    rounds: Annotated[int, typer.Option(min=1, help="Largest number of rounds.")] = 2
    paper: Annotated[
        bool, typer.Option("--paper", help="Follow the paper's released code in every detail.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The form of a command's output."""

    panel: ClassVar = "Output"
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions(ReportOptions):
    """The form of a command's output, and how much of it there is."""

    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors on stderr.")
    ] = False


def variable(option: str) -> str:
    """The environment variable that sets an option."""
    return f"INTERLACE_{option.upper()}"


class CliCommand(TyperCommand):
    """A command whose help lists its options group by group."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for the arguments, and one for each panel of options.

        The types are click's, which typer holds a private copy of from 0.29 on.
        """
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                kind = "Arguments" if param.param_type_name == "argument" else "Options"
                title = getattr(param, "rich_help_panel", None) or kind
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def command(function: Callable[..., int | None]) -> Callable[..., None]:
    """A function as a command: it exits with the code that `function` returns, or whose error it
    raises, and the parameters that are option groups become the options they consist of.

    The options of a `layered` group can also be set in the environment and in files (settings.py).
    """
    signature = inspect.signature(function)
    groups: dict[str, Any] = {}
    spread: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        group = parameter.annotation
        if not (isinstance(group, type) and dataclasses.is_dataclass(group)):
            spread.append(parameter)
            continue
        groups[name] = group
        for option, declared in inspect.signature(group).parameters.items():
            info = copy(declared.annotation.__metadata__[0])
            info.rich_help_panel = getattr(group, "panel", None)
            if getattr(group, "layered", False):
                info.envvar, info.show_envvar = variable(option), False
            kind = declared.annotation.__origin__
            spread.append(declared.replace(annotation=Annotated[kind, info]))
    spread = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in spread]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        with exit_codes(json=given.get("json", False), debug=given.get("debug", False)):
            for name, kind in groups.items():
                fields = [field.name for field in dataclasses.fields(kind)]
                given[name] = kind(**{field: given.pop(field) for field in fields})
            if code := function(**given):
                raise typer.Exit(code)

    run.__signature__ = signature.replace(parameters=spread)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return run
