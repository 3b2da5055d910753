"""Values of user code as text that a model can read, and exceptions as results."""

import dataclasses
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pydantic_core
from pydantic import BaseModel

from .base import ErrorKind, ToolResult, encodable
from .errors import ToolUnavailable

__all__ = ["OnError", "as_failure", "as_result", "as_text"]

OnError: TypeAlias = str | Callable[[BaseException], str]
"""The text that a model reads in place of an exception's own, or a function that makes it."""

_MOST_TRACEBACK = 20_000
"""Characters of a traceback that are recorded: its end."""


def as_result(value: object) -> ToolResult:
    """The result of a function that returned `value`."""
    return value if isinstance(value, ToolResult) else ToolResult(as_text(value))


def as_text(value: object) -> str:
    """A text as it is, None as nothing, all else as JSON; the text of dates, enums and the like
    without quotes. Bytes and characters that UTF-8 can't hold are written as escapes.
    """
    if isinstance(value, str):
        return encodable(value)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        json = _json(value)
    except pydantic_core.PydanticSerializationError as error:
        try:
            json = _json(_plain(value))
        except RecursionError:  # it contains itself, which the first error says
            raise error from None
    if json.startswith('"'):
        return encodable(str(pydantic_core.from_json(json)))
    return json


def _json(value: object) -> str:
    return pydantic_core.to_json(value, fallback=_fallback, inf_nan_mode="constants").decode()


def _fallback(value: Any) -> object:
    """JSON for a type that pydantic does not know: numpy's scalars as numbers, others as text."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        if isinstance(item, bool | int | float):
            return item
    return encodable(str(value))


def _plain(value: Any) -> Any:
    """A value with escapes for what UTF-8 can't hold, within containers too."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def as_failure(error: BaseException, on_error: OnError | None, own_file: str) -> ToolResult:
    """The result of a function that raised; its traceback, without the frames of `own_file`, which
    called it, is in the details.
    """
    if isinstance(error, ToolUnavailable):
        return ToolResult(str(error), ErrorKind.UNAVAILABLE)
    kind = ErrorKind.MEMORY if isinstance(error, MemoryError) else ErrorKind.EXCEPTION
    whole = traceback.TracebackException.from_exception(error)
    others = [frame for frame in whole.stack if frame.filename != own_file]
    whole.stack = traceback.StackSummary.from_list(others)
    told = "".join(whole.format())[-_MOST_TRACEBACK:]
    name = type(error).__name__
    try:
        said: object = on_error(error) if callable(on_error) else on_error
        if said is None:
            message = str(error)
            said = f"{name}: {message}" if message else name
    except Exception:  # an exception whose own __str__ fails
        said = name
    text = said if isinstance(said, str) else name
    return ToolResult(text, kind, details={"traceback": encodable(told)})
