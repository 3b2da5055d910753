"""A function's signature and docstring as a tool's schema and description."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import docstring_parser
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

from .errors import UsageError

__all__ = ["AnyKeywords", "Signature"]

_NO_SUMMARY = "."
"""A first line for the parser, which takes a section at the very beginning for plain text."""


class Signature:
    """The parameters of a function, as a pydantic model that fills them.

    `description` is the docstring up to its first section; those of the parameters are read from
    its section in the style of Google, NumPy or Sphinx, unless an `Annotated[..., Field(...)]` has
    one. `arguments` has a field for each parameter, in their order.

    >>> def add(a: int, b: int = 1) -> int:
    ...     '''Add two numbers.
    ...
    ...     Args:
    ...         a: The first one.
    ...     '''
    ...     return a + b
    >>> signature = Signature(add, "add")
    >>> signature.description, signature.arguments.model_fields["a"].description
    ('Add two numbers.', 'The first one.')
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Raises UsageError for an untyped parameter, or one that a model can't fill."""
        text = inspect.getdoc(function) or ""
        parsed = docstring_parser.parse(f"{_NO_SUMMARY}\n\n{text}")
        self.description = _paragraphs((parsed.description or "").removeprefix(_NO_SUMMARY))
        told = {each.arg_name: " ".join((each.description or "").split()) for each in parsed.params}
        try:
            self._parameters = list(inspect.signature(function).parameters.values())
            target = function if hasattr(function, "__name__") else type(function).__call__
            hints = get_type_hints(getattr(function, "func", target), include_extras=True)
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"the signature of {name!r} can't be read: {error}") from error
        self._fields: dict[str, str] = {}
        fields: dict[str, Any] = {}
        for parameter in self._parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise UsageError(
                    f"{name!r} takes {parameter}, which a model can't fill; name its parameters"
                )
            if parameter.name not in hints:
                method = parameter.name == "self" and parameter is self._parameters[0]
                hint = ": make the method of an object a tool, tool(thing.method)" if method else ""
                raise UsageError(f"the parameter {parameter.name!r} of {name!r} needs a type{hint}")
            field = self._field(parameter.name)
            self._fields[parameter.name] = field
            annotation = hints[parameter.name]
            settings: dict[str, Any] = {}
            if field != parameter.name:
                settings["alias"] = parameter.name
            if told.get(parameter.name) and not _described(annotation):
                settings["description"] = told[parameter.name]
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[field] = (annotation, Field(default, **settings) if settings else default)
        try:
            self.arguments: type[BaseModel] = create_model(
                name, __config__=ConfigDict(extra="forbid"), **fields
            )
            self.arguments.model_json_schema()
        except (PydanticUserError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"the parameters of {name!r} can't be described as JSON: {reason}"
            ) from error

    def bind(self, arguments: BaseModel) -> tuple[list[Any], dict[str, Any]]:
        """The positional and the named arguments of a call."""
        given: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self._parameters:
            value = getattr(arguments, self._fields[parameter.name])
            if parameter.kind is parameter.POSITIONAL_ONLY:
                given.append(value)
            else:
                named[parameter.name] = value
        return given, named

    def _field(self, parameter: str) -> str:
        """The parameter's field: its own name, unless pydantic keeps that name for itself."""
        if not (hasattr(BaseModel, parameter) or parameter.startswith(("_", "model_"))):
            return parameter
        field = f"argument_{parameter.strip('_')}"
        taken = {*self._fields.values(), *(each.name for each in self._parameters)}
        while field in taken:
            field += "_"
        return field


class AnyKeywords:
    """The parameters of a function that takes the fields of `arguments` by keyword."""

    description = ""

    def __init__(self, arguments: type[BaseModel]) -> None:
        self.arguments = arguments

    def bind(self, arguments: BaseModel) -> tuple[list[Any], dict[str, Any]]:
        """The arguments that were given; the function knows its own defaults."""
        return [], arguments.model_dump(exclude_unset=True, by_alias=True)


def _described(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return any(isinstance(each, FieldInfo) and each.description for each in metadata)


def _paragraphs(text: str) -> str:
    """Paragraphs, each as one line; examples of a Python prompt are for readers of the code."""
    parts = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(part for part in parts if part and not part.startswith(">>>"))
