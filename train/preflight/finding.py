"""One thing checked before a run, and the place of the setting that changes it in its file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finding", "line_of", "where"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `ok` is None where it only may be wrong."""

    what: str
    ok: bool | None
    text: str
    exit_code: int = 2


def where(file: Path, *keys: str) -> str:
    """` (file, line 5)`: the line of the first of these settings that is in it, or "" where
    none does.
    """
    for key in keys:
        line = line_of(file, key)
        if line is not None:
            return f" ({file.name}, line {line})"
    return ""


def line_of(file: Path, key: str) -> int | None:
    """The line, from 1, on which a setting such as `data.seed` is in a YAML file."""
    import yaml

    try:
        node = yaml.compose(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    for part in key.split("."):
        if not isinstance(node, yaml.MappingNode):
            return None
        found: Sequence[tuple[yaml.Node, yaml.Node]] = [
            (name, value) for name, value in node.value if name.value == part
        ]
        if not found:
            return None
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line
