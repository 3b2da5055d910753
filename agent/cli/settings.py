"""Settings that hold for every command: flags, then the environment, the folder's file, your own
file, and the defaults.
"""

import dataclasses
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ...tools.files import config_dir
from .approval_options import GuardOptions
from .exits import guarded, print_json
from .options import LimitOptions, ModelOptions, variable

__all__ = ["COMMANDS", "Setting", "config", "defaults", "folder_notice", "settings"]

COMMANDS = ("run", "chat", "rollout", "eval", "coldstart")
"""The commands that take these settings; a section of a file has the name of one."""
_GROUPS = (ModelOptions, LimitOptions, GuardOptions)
_LOOSENS = ("approve", "no_isolation", "engine_option")
"""What no file may set that merely lies in the folder where one works: it may be anybody's."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, and where it comes from: `default`, a file, or a variable of the environment."""

    value: Any
    source: str


def own_file() -> Path:
    """`$XDG_CONFIG_HOME/interlace/config.toml`, else below `~/.config`."""
    return config_dir() / "config.toml"


def folder_file() -> Path:
    """`interlace.toml` in the folder where one works."""
    return Path("interlace.toml")


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


def folder_notice() -> list[str]:
    """A notice that the folder's file sets options, or an empty list if there is no such file."""
    file = folder_file()
    return [f"{file} in this folder sets options: see interlace config"] if file.is_file() else []


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
        if not file.is_file():
            continue
        said = _read(file)
        for section in ({k: v for k, v in said.items() if k not in COMMANDS}, said.get(command)):
            for key, value in (section or {}).items():
                name = key.replace("-", "_")
                found[name] = Setting(_checked(file, name, value), str(file))
    return found


def _read(file: Path) -> dict[str, Any]:
    import tomllib

    from ...tools.errors import UsageError

    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read the settings in {file}: {error}") from error
    for name, value in said.items():
        if isinstance(value, dict) is not (name in COMMANDS):
            known = f"its sections are {', '.join(COMMANDS)}"
            raise UsageError(f"{file}: {name!r} is no setting, and no section: {known}")
    return said


def _checked(file: Path, name: str, value: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    from ...tools.errors import UsageError

    key = name.replace("_", "-")
    if name not in _options():
        raise UsageError(f"{file}: there is no setting {key!r}: `interlace config` lists them all")
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
    from ...rollout.formats import FORMATS
    from ...rollout.models.load import refuse_engine
    from ...tools.importing import refuse_code
    from ...tools.named import TOOLS

    if name == "model":
        refuse_engine(value, folder_file())
    elif name in ("tool", "format"):
        refuse_code(name, value, TOOLS if name == "tool" else FORMATS, folder_file())


def config(
    command: Annotated[
        str, typer.Argument(help=f"For which command: {', '.join(COMMANDS)}.")
    ] = "chat",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Show every setting and where it comes from: a variable, a file, or the default.

    A flag comes before a variable of the environment (INTERLACE_MODEL, ...), that before
    `interlace.toml` in this folder, that before your own config.toml. The names are those of the
    flags; a section such as [chat] is for one command.
    """
    with guarded(json=json, debug=debug):
        from ...tools.errors import UsageError

        if command not in COMMANDS:
            raise UsageError(f"{command!r} takes no settings; {', '.join(COMMANDS)} do")
        found = settings(command)
        if json:
            said = {name: dataclasses.asdict(setting) for name, setting in found.items()}
            print_json({"command": command, "settings": said, "error": None})
            return
        _print(found)


def _print(found: dict[str, Setting]) -> None:
    from .render.terminal import printable

    values = {name: _as_toml(setting.value) for name, setting in found.items()}
    wide = max(len(name) for name in found)
    for name, setting in found.items():
        key = name.replace("_", "-")
        print(printable(f"{key:{wide}}  {values[name]:24}  {setting.source}").rstrip())
    print(f"\nyour file: {own_file()}\nthis folder's: {folder_file().absolute()}")


def _as_toml(value: Any) -> str:
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False)
