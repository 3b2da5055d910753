"""The settings of a command in layers: flags, then the environment, the folder's file, the user's
own file, and the defaults.
"""

import dataclasses
import json as jsonlib
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...rollout.formats import FORMATS
from ...rollout.models.load import refuse_engine
from ...tools.errors import DataError, UsageError
from ...tools.files import read_text
from ...tools.importing import refuse_code
from ...tools.named import TOOLS
from .exits import print_json
from .options import (
    LAYERED,
    GuardOptions,
    LimitOptions,
    ModelOptions,
    folder_file,
    own_file,
    variable,
)
from .render.terminal import printable

__all__ = ["Setting", "defaults", "print_settings", "settings"]

_GROUPS = (ModelOptions, LimitOptions, GuardOptions)
_LOOSENS = ("approve", "no_isolation", "engine_option")
"""Settings that `interlace.toml` in the working directory may not have: it may be anybody's."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it comes from: `default`, a file, or a variable of the environment."""

    value: Any
    source: str


def defaults(command: str) -> dict[str, Any]:
    """Values that the files set for a command, by parameter. Raises UsageError for a bad file."""
    return {name: setting.value for name, setting in _from_files(command).items()}


def settings(command: str) -> dict[str, Setting]:
    """Every setting of a command as it holds without flags. Raises UsageError."""
    found = {name: Setting(default, "default") for name, (_, default) in _options().items()}
    found |= _from_files(command)
    for name in found:
        if value := os.environ.get(variable(name)):
            found[name] = Setting(value, f"${variable(name)}")
    return found


@cache
def _options() -> dict[str, tuple[Any, Any]]:
    """Each setting's type and default."""
    found: dict[str, tuple[Any, Any]] = {}
    for group in _GROUPS:
        hints = get_type_hints(group)
        found |= {f.name: (hints[f.name], f.default) for f in dataclasses.fields(group)}
    return found


def _from_files(command: str) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for file in (own_file(), folder_file()):  # the later one prevails
        if not file.exists():
            continue
        said = _read(file)
        for section in ({k: v for k, v in said.items() if k not in LAYERED}, said.get(command)):
            for key, value in (section or {}).items():
                name = key.replace("-", "_")
                found[name] = Setting(_checked(file, name, value), str(file))
    return found


_LONGEST_FILE = 1_000_000
"""Bytes of a file of settings."""


def _read(file: Path) -> dict[str, Any]:
    try:
        said = tomllib.loads(read_text(file, most=_LONGEST_FILE))
    except (DataError, ValueError, RecursionError) as error:
        raise UsageError(f"can't read the settings in {file}: {error}") from error
    for name, value in said.items():
        if isinstance(value, dict) is not (name in LAYERED):
            known = f"its sections are {', '.join(LAYERED)}"
            raise UsageError(f"{file}: {name!r} is neither a setting nor a section: {known}")
    return said


def _checked(file: Path, name: str, value: Any) -> Any:
    key = name.replace("_", "-")
    if name not in _options():
        raise UsageError(f"{file}: unknown setting {key!r}: `interlace config` lists them all")
    if name in _LOOSENS and file == folder_file():
        where = f"in {own_file()}, or give --{key}"
        raise UsageError(f"{file} may not set {key!r}, since any folder could: set it {where}")
    kind, default = _options()[name]
    if isinstance(value, str) and name in ("tool", "approve", "engine_option"):
        value = [value]
    try:
        checked = TypeAdapter(kind).validate_python(value, strict=not isinstance(default, float))
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise UsageError(f"{file}: {key} can't be {value!r}: {why}") from None
    if file == folder_file():
        _refuse_code(name, checked)
    return checked


def _refuse_code(name: str, value: Any) -> None:
    """Refuse what would load code, in the folder's file, which may be anybody's."""
    if name == "model":
        refuse_engine(value, folder_file())
    elif name in ("tool", "format"):
        refuse_code(name, value, TOOLS if name == "tool" else FORMATS, folder_file())


def print_settings(command: str, *, json: bool) -> None:
    """Print every setting of a command and its source. Raises UsageError."""
    if command not in LAYERED:
        raise UsageError(f"{command!r} takes no settings; {', '.join(LAYERED)} do")
    found = settings(command)
    if json:
        plain = {name: dataclasses.asdict(setting) for name, setting in found.items()}
        print_json({"command": command, "settings": plain, "error": None})
        return
    values = {
        name: "-" if setting.value is None else jsonlib.dumps(setting.value, ensure_ascii=False)
        for name, setting in found.items()
    }
    wide = max(len(name) for name in found)
    for name, setting in found.items():
        key = name.replace("_", "-")
        print(printable(f"{key:{wide}}  {values[name]:24}  {setting.source}").rstrip())
    print(f"\nyour file: {own_file()}\nthis folder's: {folder_file().absolute()}")
