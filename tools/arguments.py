"""Reading the arguments of a call: a typed value, or a result that says what was wrong."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from .base import ErrorKind, ToolResult

__all__ = ["read_arguments"]

Schema = TypeVar("Schema", bound=BaseModel)

_SHOWN = 80
"""Characters of a wrong value that are quoted back."""


def read_arguments(schema: type[Schema], arguments: Mapping[str, JsonValue]) -> Schema | ToolResult:
    """The arguments as the schema's model, or an `ARGUMENTS` result naming each one that is wrong.

    Values are read leniently ("3" is an integer where one is wanted; a text that does not fit is
    tried as JSON, and an empty one as null), names strictly if the schema forbids extra ones.
    """
    try:
        return schema.model_validate(dict(arguments))
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
        read = {name: _parsed(arguments[name]) for name in wrong if name in arguments}
        with suppress(ValidationError):
            return schema.model_validate({**arguments, **read})
        lines = [
            _sentence(schema, problem["type"], problem["loc"], problem["msg"], problem["input"])
            for problem in error.errors(include_url=False, include_context=False)
        ]
        return ToolResult("\n".join(["Bad arguments.", *lines]), ErrorKind.ARGUMENTS)


def _parsed(value: JsonValue) -> JsonValue:
    """The value that a text is the JSON of: models write `"null"` and `"[1, 2]"`."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError, RecursionError):
        parsed: JsonValue = json.loads(value) if value.strip() else None
        return parsed
    return value


def _sentence(
    schema: type[BaseModel], kind: str, place: tuple[int | str, ...], message: str, value: object
) -> str:
    name = ".".join(str(part) for part in place) or "arguments"
    if kind == "missing":
        return f"{name}: is required, and missing"
    if kind == "extra_forbidden" and len(place) == 1:
        known = ", ".join(field.alias or key for key, field in schema.model_fields.items())
        return f"{name}: there is no such argument; the arguments are: {known or 'none'}"
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "..."
    return f"{name}: {message[:1].lower()}{message[1:]}, got {shown}"
