"""`interlace tools`: what a model can be offered, and what it is told of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..exits import guarded, print_json

if TYPE_CHECKING:
    from ....tools import Tool

__all__ = ["tools"]

_KINDS = {
    "python": "a Python that keeps its variables, behind walls (interlace doctor)",
    "python:jupyter": "the same in an ipykernel, with rich display and magics",
    "sql:FILE": "an SQLite database, which can only be read",
    "search:PATH": "an index over a file or folder of texts",
    "FILE.py:NAME": "a typed function of yours; MODULE:NAME where it can be imported",
}


def tools(
    tool: Annotated[
        list[str] | None,
        typer.Argument(help="As behind --tool, such as sql:shop.db; none: all kinds."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the kinds of tools; of those that are named, print what a model is told."""
    with guarded(json=json, debug=debug):
        if not tool:
            _print_kinds(json)
            return
        from ...agent import Agent

        offered = Agent(tools=tool).tools
        if json:
            print_json({"tools": [_as_json(one) for one in offered], "error": None})
            return
        for one in offered:
            _print(one)


def _print_kinds(json: bool) -> None:
    from ....rollout.formats import FORMATS
    from ....tools.importing import names
    from ....tools.named import TOOLS

    installed = [name for name in names("tool", TOOLS) if name not in TOOLS]
    kinds = {**_KINDS, **dict.fromkeys(installed, "a tool of an installed package")}
    formats = names("format", FORMATS)
    if json:
        print_json({"kinds": kinds, "formats": formats, "error": None})
        return
    wide = max(map(len, kinds))
    for name, what in kinds.items():
        print(f"{name:{wide}}  {what}")
    print("\nIn Python, any typed function is a tool: Agent(tools=[function]).")
    print(f"Formats (--format): {', '.join(formats)}")


def _formats(tool: "Tool") -> list[str]:
    """The formats that can express a call of it."""
    from ....rollout.formats import FORMATS
    from ....tools.errors import UsageError

    able = []
    for name, format in FORMATS.items():
        try:
            format.check([tool])
            able.append(name)
        except UsageError:
            continue
    return able


def _as_json(tool: "Tool") -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "arguments": tool.arguments.model_json_schema(),
        "formats": _formats(tool),
    }


def _print(tool: "Tool") -> None:
    from ..render.terminal import printable

    print(f"{tool.name}: {printable(tool.description)}")
    fields = tool.arguments.model_fields.items()
    for name, field in fields:
        kind = getattr(field.annotation, "__name__", str(field.annotation))
        what = f"  {field.description}" if field.description else ""
        print(f"  {name} ({kind}){printable(what)}")
    print(f"  formats: {', '.join(_formats(tool))}\n")
