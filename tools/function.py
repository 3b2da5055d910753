"""Any typed Python function as a tool."""

import asyncio
import contextvars
import dataclasses
import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, get_type_hints, overload

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model
from pydantic.errors import PydanticUserError

from .arguments import read_arguments
from .base import INTERRUPTED, ErrorKind, ToolResult, ToolSession
from .errors import ToolUnavailable, UsageError

__all__ = ["FunctionTool", "tool"]

_CANCEL_SECONDS = 1.0
"""How long a cancelled coroutine may take to clean up before it is left behind."""


class FunctionTool:
    """A typed function, sync or async, that a model may call.

    The description is the docstring's first paragraph; the arguments are the parameters, with
    their defaults, `Annotated[..., Field(description=...)]`, `Literal`, lists, models and so on.
    What the function returns is read as text: a string as it is, `None` as nothing, all else as
    JSON; it may also return a `ToolResult`. What it raises becomes an `EXCEPTION` result, save
    `ToolUnavailable`, which says that the failure is ours. Of a generator, what it yields is the
    text, piece by piece: whoever listens hears each at once, and the deadline keeps what there is.

    An async function runs in the event loop and is cancelled at the deadline. A sync one runs in
    a thread of its own. A thread can't be killed: at the deadline the call returns `TIMEOUT` and
    the thread runs on behind it; `stray` counts such threads. They never keep the program alive.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> adder = FunctionTool(add)
    >>> adder.name, adder.description, list(adder.arguments.model_fields)
    ('add', 'Add two numbers.', ['a', 'b'])
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        """Raises `UsageError` for a function that has no usable name or an untyped parameter."""
        self.name = name if name is not None else getattr(function, "__name__", "")
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UsageError(
                f"{function!r} has no name that a model could call; give one of letters, digits "
                "and underscores: tool(function, name=...)"
            )
        self.function = function
        self.description = _first_paragraph(function) if description is None else description
        self.arguments = _schema(function, self.name)
        self._asynchronous = any(
            inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
            for one in (function, getattr(function, "__call__", None))  # noqa: B004 (an object)
        )
        self._left_behind: set[threading.Thread | asyncio.Task[ToolResult]] = set()

    @property
    def stray(self) -> int:
        """Calls that passed their deadline, could not be stopped and still run."""
        return sum(_runs(call) for call in self._left_behind)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session; functions keep no state, so there is nothing to hold."""
        yield _FunctionSession(self)

    async def run(self, arguments: BaseModel, seconds: float, pieces: "_Pieces") -> ToolResult:
        """Call the function with arguments that were read, stopped after `seconds`.

        `pieces` gets what a generator yields, as it yields it.
        """
        given, named = _bind(self.function, arguments)
        run = self._run_async if self._asynchronous else self._run_thread
        return pieces.before(await run(given, named, seconds, pieces))

    async def _run_async(
        self, given: list[Any], named: dict[str, Any], seconds: float, pieces: "_Pieces"
    ) -> ToolResult:
        async def body() -> ToolResult:
            try:
                value = self.function(*given, **named)
                if not inspect.isasyncgen(value):
                    return _as_result(await value)
                async with aclosing(value):
                    async for piece in value:
                        pieces.add(_as_text(piece))
                return ToolResult("")
            except (Exception, SystemExit) as error:
                return _as_failure(error)

        task = asyncio.create_task(body())
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done() and not task.cancelled():
                return task.result()
            cancelled_itself = task.done()
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
            if cancelled_itself:
                return ToolResult("CancelledError", ErrorKind.EXCEPTION)
            return _out_of_time(seconds)
        finally:
            if not task.done():
                task.cancel()
                self._leave_behind(task)

    async def _run_thread(
        self, given: list[Any], named: dict[str, Any], seconds: float, pieces: "_Pieces"
    ) -> ToolResult:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[ToolResult] = loop.create_future()

        def settle(result: ToolResult) -> None:
            if not answer.done():
                answer.set_result(result)

        def body() -> None:
            try:
                value = self.function(*given, **named)
                if inspect.isgenerator(value):
                    for piece in value:
                        if answer.done():  # out of time: here this thread can stop
                            break
                        loop.call_soon_threadsafe(pieces.add, _as_text(piece))
                    value = None
                result = _as_result(value)
            except BaseException as error:  # a thread has nobody above it to raise to
                result = _as_failure(error)
            with suppress(RuntimeError):  # the loop closed before a stray thread came to its end
                loop.call_soon_threadsafe(settle, result)

        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(body,), name=f"tool {self.name}", daemon=True
        )
        thread.start()
        try:
            await asyncio.wait({answer}, timeout=seconds)
            return answer.result() if answer.done() else _out_of_time(seconds)
        finally:
            if not answer.done():
                answer.cancel()
                self._leave_behind(thread)

    def _leave_behind(self, call: threading.Thread | asyncio.Task[ToolResult]) -> None:
        self._left_behind = {call, *filter(_runs, self._left_behind)}


class _Pieces:
    """The texts a generator has yielded."""

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self.texts: list[str] = []
        self._on_output = on_output

    def add(self, text: str) -> None:
        self.texts.append(text)
        if self._on_output is not None:
            self._on_output(text)

    def before(self, result: ToolResult) -> ToolResult:
        """The result, behind what was yielded."""
        text = "\n".join(filter(None, ["".join(self.texts).rstrip("\n"), result.text]))
        return dataclasses.replace(result, text=text) if self.texts else result


class _FunctionSession:
    """Functions keep no state: a copy is a new one."""

    def __init__(self, tool: FunctionTool) -> None:
        self._tool = tool
        self.on_output: Callable[[str], None] | None = None
        self.interrupted: ToolResult | None = None

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        start = time.perf_counter()
        self.interrupted = None
        read = read_arguments(self._tool.arguments, arguments)
        if isinstance(read, ToolResult):
            return read
        pieces = _Pieces(self.on_output)
        try:
            result = await self._tool.run(read, seconds, pieces)
        except asyncio.CancelledError:
            stopped = ToolResult(
                INTERRUPTED, ErrorKind.INTERRUPTED, seconds=time.perf_counter() - start
            )
            self.interrupted = pieces.before(stopped)
            raise
        return dataclasses.replace(result, seconds=time.perf_counter() - start)

    async def fork(self) -> ToolSession:
        return _FunctionSession(self._tool)


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
@overload
def tool(
    function: Callable[..., Any], /, *, name: str | None = None, description: str | None = None
) -> FunctionTool: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function a tool: `tool(f)`, `@tool`, or `@tool(name="...", description="...")`.

    >>> @tool
    ... def shout(text: str) -> str:
    ...     "Say it louder."
    ...     return text.upper()
    >>> shout.description
    'Say it louder.'
    """
    if function is not None:
        return FunctionTool(function, name=name, description=description)
    return lambda function: FunctionTool(function, name=name, description=description)


def _runs(call: threading.Thread | asyncio.Task[ToolResult]) -> bool:
    return call.is_alive() if isinstance(call, threading.Thread) else not call.done()


def _first_paragraph(function: Callable[..., Any]) -> str:
    text = inspect.getdoc(function) or ""
    return " ".join(text.split("\n\n", 1)[0].split())


def _schema(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """A pydantic model whose fields are the function's parameters, in their order."""
    try:
        parameters = inspect.signature(function).parameters.values()
        target = function if hasattr(function, "__name__") else type(function).__call__
        hints = get_type_hints(getattr(function, "func", target), include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise UsageError(f"the signature of {name!r} can't be read: {error}") from error
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise UsageError(
                f"{name!r} takes {parameter}, which a model can't fill; name its parameters"
            )
        if parameter.name not in hints:
            raise UsageError(f"the parameter {parameter.name!r} of {name!r} needs a type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[_field(parameter.name)] = (
            hints[parameter.name],
            Field(default, alias=parameter.name)
            if _field(parameter.name) != parameter.name
            else default,
        )
    try:
        schema: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid"), **fields
        )
        schema.model_json_schema()
    except (PydanticUserError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"the parameters of {name!r} can't be described as JSON: {reason}"
        ) from error
    return schema


def _field(parameter: str) -> str:
    """The parameter's field: its own name, unless pydantic keeps that name for itself."""
    taken = hasattr(BaseModel, parameter) or parameter.startswith(("_", "model_"))
    return f"argument_{parameter.strip('_')}" if taken else parameter


def _bind(function: Callable[..., Any], arguments: BaseModel) -> tuple[list[Any], dict[str, Any]]:
    given: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        value = getattr(arguments, _field(parameter.name))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            given.append(value)
        else:
            named[parameter.name] = value
    return given, named


def _as_result(value: object) -> ToolResult:
    return value if isinstance(value, ToolResult) else ToolResult(_as_text(value))


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        text = pydantic_core.to_json(value, fallback=str, inf_nan_mode="constants").decode()
    except pydantic_core.PydanticSerializationError:  # bytes or surrogates: Python escapes them
        return repr(value)
    if text.startswith('"'):  # a date, a decimal, an enum: its text, without the quotes
        return str(pydantic_core.from_json(text))
    return text


def _as_failure(error: BaseException) -> ToolResult:
    if isinstance(error, ToolUnavailable):
        return ToolResult(str(error), ErrorKind.UNAVAILABLE)
    kind = ErrorKind.MEMORY if isinstance(error, MemoryError) else ErrorKind.EXCEPTION
    try:
        message = str(error)
    except Exception:  # an exception whose own __str__ fails
        message = ""
    name = type(error).__name__
    return ToolResult(f"{name}: {message}" if message else name, kind)


def _out_of_time(seconds: float) -> ToolResult:
    return ToolResult(f"The time limit of {seconds:g} s was reached.", ErrorKind.TIMEOUT)
