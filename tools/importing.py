"""Names that a user gives for a tool, a format, a reward and the like, and what they stand for.

The same names hold in commands, in YAML and in Python:

    THING[:SOURCE][@PARAMETERS]

THING is one of

    NAME                one of interlace's own, or one that an installed package registers in the
                        entry-point group `interlace.plugins` as `KIND.NAME`, such as `tool.tide`
    MODULE:ATTRIBUTE    an attribute of an importable module; the working folder is searched too
    PATH.py:ATTRIBUTE   an attribute of a file, which may import what lies beside it

SOURCE is what it works on: a database, a folder, an address, a file of rows. PARAMETERS are
`KEY=VALUE` pairs with commas between them. The first may be a bare number: it is the value of the
first parameter. A value is a number, `true`, `false` or text. An `@` that is followed by anything
else belongs to what is before it, so addresses and file names may hold one.

Loading runs code. Names from a log, a checkpoint, a task file or a run's folder are therefore
looked up with `trusted=False`, which finds what interlace and installed packages register and
nothing else.
"""

import functools
import importlib
import importlib.util
import inspect
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from .errors import InterlaceError, UsageError

__all__ = ["Found", "Name", "Parameter", "find", "names", "parse_name", "refuse_code", "unknown"]

GROUP = "interlace.plugins"
Parameter: TypeAlias = int | float | bool | str

_KEY = r"[A-Za-z_]\w*"
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_PARAMETERS = re.compile(
    rf"@((?:{_NUMBER}|{_KEY}=[^,@]*)(?:,{_KEY}=[^,@]*)*)\Z"  # the last @, so none in a value
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name taken apart. `bare` is the number without a key among the parameters, or None.

    Example:
        >>> parse_name("tree@8,rule=split")
        Name(head='tree', source='', bare=8, parameters={'rule': 'split'})
    """

    head: str
    """The text before the first colon: a registered name, a module or a file."""
    source: str = ""
    """The text after it: what a registered thing works on, or an attribute and that."""
    bare: int | float | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def is_attribute(self) -> bool:
        """True if it has the form of an attribute of a file or module, found or not."""
        module = self.head.endswith(".py") or all(map(str.isidentifier, self.head.split(".")))
        return module and all(map(str.isidentifier, self.source.partition(":")[0].split(".")))


@dataclass(frozen=True, slots=True)
class Found:
    """The thing that a name stands for. `own`: it is in interlace's table."""

    value: Any
    name: Name
    own: bool
    source: str = ""
    """What the thing works on; empty if the name does not say."""

    @property
    def configured(self) -> bool:
        """True if the name says more than the thing: what it works on, or parameters."""
        return bool(self.source or self.name.bare is not None or self.name.parameters)

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` with the name's parameters as keyword arguments.

        The bare number goes to the first keyword-only parameter, else to the first one that has a
        default. Raises UsageError for a parameter that the function does not have, or a value that
        does not fit its annotation.
        """
        given = dict(self.name.parameters)
        if self.name.bare is None and not given:
            return function
        if not callable(function):
            raise UsageError(f"{self.name.head} takes neither a source nor parameters")
        try:
            signature = inspect.signature(function, eval_str=True).parameters.values()
        except NameError:  # an annotation that is there for type checkers alone
            signature = inspect.signature(function).parameters.values()
        known = {each.name: each for each in signature if each.kind is each.KEYWORD_ONLY} or {
            each.name: each for each in signature if each.default is not each.empty
        }
        if self.name.bare is not None:
            if not known:
                raise UsageError(f"{self.name.head} takes no parameter, so no @{self.name.bare}")
            if (first := next(iter(known))) in given:
                raise UsageError(f"{self.name.head} has its {first} twice: as a number and by name")
            given = {first: self.name.bare, **given}
        for key in given:
            if key in known:
                given[key] = _fit(self.name.head, key, given[key], known[key].annotation)
            elif not any(each.kind is each.VAR_KEYWORD for each in signature):
                raise UsageError(unknown(f"parameter of {self.name.head}", key, known))
        return functools.partial(function, **given)

    def make(self) -> Any:
        """Call the thing with its source, if it has one, and its parameters.

        Raises UsageError for a thing that takes neither, or a user's that fails.
        """
        if not callable(self.value):
            raise UsageError(f"{self.name.head} takes neither a source nor parameters")
        call = self.bind(self.value)
        try:
            return call(self.source) if self.source else call()
        except InterlaceError:
            raise
        except Exception as error:  # boundary: somebody's code
            if self.own:
                raise
            raise UsageError(
                f"{self.name.head}:{self.name.source} can't be made: "
                f"{type(error).__name__}: {error}"
            ) from error


def _fit(head: str, key: str, value: Parameter, annotation: Any) -> Any:
    """The value of a parameter as its annotation has it."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    settings = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
    try:
        return TypeAdapter(annotation, config=settings).validate_python(value)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise UsageError(f"{key} of {head} can't be {value!r}: {why}") from None
    except PydanticUserError:  # a type that pydantic can't read
        return value


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence that says a name is unknown, with the names there are."""
    listed = ", ".join(known)
    return f"unknown {kind} {name!r}" + (f"; choose from {listed}" if listed else "")


def parse_name(text: str) -> Name:
    """Take a name apart; nothing is looked up."""
    bare: int | float | None = None
    parameters: dict[str, Parameter] = {}
    if found := _PARAMETERS.search(text):
        text = text[: found.start()]
        for part in found[1].split(","):
            key, equals, value = part.partition("=")
            if equals:
                parameters[key] = _value(value)
            else:
                number = _value(key)
                assert not isinstance(number, str)
                bare = number
    head, _, source = text.partition(":")
    return Name(head, source, bare, parameters)


def _value(text: str) -> Parameter:
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(_NUMBER, text):
        try:
            return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
        except ValueError as error:  # Python reads no integer of more than 4,300 digits
            raise UsageError(f"a number of {len(text)} digits is too long for a name") from error
    return text


def names(kind: str, table: Mapping[str, Any]) -> list[str]:
    """The names of a kind that need no code of the user's: interlace's, then the plug-ins'."""
    return [*table, *(name for name in _plugins(kind) if name not in table)]


def find(
    kind: str,
    text: str,
    table: Mapping[str, Any],
    *,
    trusted: bool = True,
    folder: Path | None = None,
) -> Found:
    """Find what `text` names among the things of a kind.

    `folder` is what paths are relative to: the folder of the configuration that holds the name,
    else the working folder. Without `trusted` no code of the user's is loaded. Raises UsageError.
    """
    name = parse_name(text)
    plugins = _plugins(kind)
    if name.head in table:
        if point := plugins.get(name.head):
            raise UsageError(
                f"the package {_package(point)} registers the {kind} {name.head!r}, which is a "
                "name of interlace's own: uninstall it, or name its thing as module:name"
            )
        return Found(table[name.head], name, own=True, source=name.source)
    if point := plugins.get(name.head):
        try:
            return Found(point.load(), name, own=False, source=name.source)
        except Exception as error:  # boundary: somebody's package
            raise UsageError(
                f"the {kind} {name.head!r} of the package {_package(point)} can't be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
    if not name.source:
        raise UsageError(
            f"{unknown(kind, name.head, names(kind, table))}, or name your own as module:name or "
            "path/file.py:name"
        )
    if not trusted:
        raise UsageError(
            f"the {kind} {text!r} would load code, which only the command line, your own "
            "configuration and installed packages may name: give it there again"
        )
    attribute, _, source = name.source.partition(":")
    try:
        path = None
        if name.head.endswith(".py"):
            path = ((folder or Path.cwd()) / name.head).resolve()
        here = str(Path.cwd() if path is None else path.parent)
        if here not in sys.path:  # a file may import what lies beside it
            sys.path.append(here)
        module = importlib.import_module(name.head) if path is None else _module_of(path)
        value = functools.reduce(getattr, attribute.split("."), module)
    except Exception as error:  # boundary: somebody's module
        if isinstance(error, ModuleNotFoundError) and error.name == name.head.split(".")[0]:
            known = unknown(kind, name.head, names(kind, table))
            raise UsageError(f"{known}; nor is there a module {name.head!r} to import") from error
        raise UsageError(
            f"the {kind} {text!r} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    return Found(value, name, own=False, source=source)


def refuse_code(
    kind: str, given: str | Iterable[str] | None, table: Mapping[str, Any], source: object
) -> None:
    """Raise UsageError if a name found in `source`, which is not trusted, would load code."""
    for text in [given] if isinstance(given, str) else given or ():
        name = parse_name(text)
        if name.source and name.head not in names(kind, table):
            raise UsageError(
                f"{source} names the {kind} {text!r}, which would load code: only the command "
                "line, your own configuration and installed packages may name it, so name it there"
            )


def _module_of(path: Path) -> Any:
    """The file as a module, run once in a process."""
    key = f"interlace_file_{path.stem}_{zlib.crc32(bytes(path)):08x}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise FileNotFoundError(f"no such file: {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[key]
            raise
    return sys.modules[key]


def _plugins(kind: str) -> dict[str, EntryPoint]:
    """The entry points of a kind by name. Raises UsageError for two packages with one name."""
    found: dict[str, EntryPoint] = {}
    for point in _registered(tuple(sys.path)):
        own_kind, _, name = point.name.partition(".")
        if own_kind != kind or not name:
            continue
        other = found.setdefault(name, point)
        if other.value != point.value or _package(other) != _package(point):
            raise UsageError(
                f"the packages {_package(other)} and {_package(point)} both register the {kind} "
                f"{name!r}: uninstall one of them, or name yours as module:name"
            )
    return found


@functools.lru_cache(maxsize=4)
def _registered(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points on this path; looking for them reads every package's metadata."""
    return tuple(entry_points(group=GROUP))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
