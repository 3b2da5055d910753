"""`interlace tools`: what a model can be offered, and what it is told of it."""

from typing import Any

from ....rollout.formats import FORMATS
from ....tools import Tool
from ....tools.errors import UsageError
from ....tools.importing import names
from ....tools.named import TOOLS
from ...agent import Agent
from ..exits import print_json
from ..render.terminal import printable

__all__ = ["print_kinds", "print_tools"]

_KINDS = {
    "python": "a Python that keeps its variables, behind walls (interlace doctor)",
    "python:jupyter": "the same in an ipykernel, with rich display and magics",
    "sql:FILE": "an SQLite database, which can only be read",
    "search:PATH": "an index over a file or folder of texts",
    "FILE.py:NAME": "a typed function of yours; MODULE:NAME where it can be imported",
}


def print_kinds(*, json: bool) -> None:
    """List the kinds of tools, and the formats."""
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


def print_tools(given: list[str], *, json: bool) -> None:
    """Print what a model is told of each tool."""
    offered = Agent(tools=given).tools
    if json:
        print_json({"tools": [_as_json(tool) for tool in offered], "error": None})
        return
    for tool in offered:
        print(f"{tool.name}: {printable(tool.description)}")
        for name, field in tool.arguments.model_fields.items():
            kind = getattr(field.annotation, "__name__", str(field.annotation))
            what = f"  {field.description}" if field.description else ""
            print(f"  {name} ({kind}){printable(what)}")
        print(f"  formats: {', '.join(_formats(tool))}\n")


def _formats(tool: Tool) -> list[str]:
    """The formats that can express a call of it."""
    able = []
    for name, format in FORMATS.items():
        try:
            format.check([tool])
            able.append(name)
        except UsageError:
            continue
    return able


def _as_json(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "arguments": tool.arguments.model_json_schema(),
        "formats": _formats(tool),
    }
