"""Any typed Python function as a tool."""

import asyncio
import contextvars
import dataclasses
import functools
import inspect
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel, JsonValue

from .arguments import read_arguments
from .background import in_thread
from .base import INTERRUPTED, ErrorKind, ToolResult, ToolSession
from .errors import UsageError
from .signature import AnyKeywords, Signature
from .values import OnError, as_failure, as_result, as_text

__all__ = ["FunctionTool", "tool"]

R = TypeVar("R")

_log = logging.getLogger("interlace.tools")

_CANCEL_SECONDS = 1.0
"""How long a cancelled coroutine may take to clean up before it is left behind."""
_BLOCKS_SECONDS = 1.0
"""An async function that holds the event loop for longer, in one call, is named in the log."""
_LONGEST = 32 << 20
"""Characters that a generator may yield."""


class FunctionTool:
    """A typed function, sync or async, that a model may call; for Python code it stays a function.

    The description is the docstring up to its first section; the arguments are the parameters, with
    their defaults, `Annotated[..., Field(description=...)]`, `Literal`, lists, models and so on,
    and with the descriptions that the docstring has of them (Google, NumPy or Sphinx style).
    What the function returns is read as text: a string as it is, `None` as nothing, all else as
    JSON; it may also return a `ToolResult`, and what it returns decides, not how it was declared:
    something awaitable is awaited. Of a generator, what it yields is the text, piece by piece:
    whoever listens hears each at once, and the deadline keeps what there is.

    What it raises becomes an `EXCEPTION` result, also if it is no `Exception`; `KeyboardInterrupt`
    in an async function alone ends the program. `ToolUnavailable` says that the failure is ours.
    The logger `interlace.tools` and the result's details (`traceback`) have the whole error; the
    model reads its type and message, or `on_error`: a text, or a function of the error.

    An async function runs in the event loop and is cancelled at the deadline; one that blocks the
    loop can't be, which the log and the result then say. A sync one runs in a thread of its own. A
    thread can't be killed: at the deadline the call returns `TIMEOUT` and the thread continues
    without it; `stray` counts such threads. They never keep the program alive.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> adder = FunctionTool(add)
    >>> adder.name, adder.description, list(adder.arguments.model_fields)
    ('add', 'Add two numbers.', ['a', 'b'])
    >>> adder(2, b=3)
    5
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        on_error: OnError | None = None,
        arguments: type[BaseModel] | None = None,
    ) -> None:
        """`arguments` is the schema of a function of any keywords, instead of its signature.

        Raises `UsageError` for a function that has no usable name or an untyped parameter.
        """
        self.name = name if name is not None else getattr(function, "__name__", "")
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.name):
            raise UsageError(
                f"{function!r} has no name that a model could call; give one of letters, digits "
                "and underscores: tool(function, name=...)"
            )
        self.function = function
        self.on_error = on_error
        signature = Signature(function, self.name) if arguments is None else AnyKeywords(arguments)
        self._signature = signature
        self.arguments = signature.arguments
        self.description = signature.description if description is None else description
        self._asynchronous = any(
            inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
            for one in (function, getattr(function, "__call__", None))  # noqa: B004 (an object)
        )
        self._left_behind: set[threading.Thread | asyncio.Task[ToolResult]] = set()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, as Python code calls it."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.name}{inspect.signature(self.function)}>"

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
        given, named = self._signature.bind(arguments)
        held = _HeldLoop()
        call: Callable[[], object] = partial(self.function, *given, **named)
        task = asyncio.create_task(self._call(call, pieces, held))
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.cancelled():  # by itself
                result = ToolResult("CancelledError", ErrorKind.EXCEPTION)
            elif task.done():
                result = task.result()
            else:
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
                result = _out_of_time(seconds)
        finally:
            if not task.done():
                task.cancel()
                self._leave_behind(task)
        if held.seconds > min(seconds, _BLOCKS_SECONDS):
            _log.warning(
                "the async tool %r held up the event loop for %.1f s: await in it, or make it a "
                "plain function, which gets a thread",
                self.name,
                held.seconds,
            )
            result = result if held.seconds <= seconds else _out_of_time(seconds)
            blocked = {"blocked_seconds": round(held.seconds, 3)}
            result = dataclasses.replace(result, details={**result.details, **blocked})
        return pieces.before(result)

    async def _call(
        self, call: Callable[[], object], pieces: "_Pieces", held: "_HeldLoop"
    ) -> ToolResult:
        """Call the function, and do what its value asks for: await it, go through it."""
        try:
            if self._asynchronous:
                value = call()
            else:
                value = await self._in_own_thread(call, pieces)
            while inspect.isawaitable(value):
                value = await held.awaiting(value)
            if hasattr(value, "__aiter__"):
                return await self._read_all(value, pieces, held)
            if isinstance(value, Generator):
                value = await self._in_own_thread(lambda: value, pieces)
            if isinstance(value, str | ToolResult | None):
                return as_result(value)
            return await in_thread(as_result, value)  # it may be large
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:
            return self._failure(error)

    async def _read_all(self, value: Any, pieces: "_Pieces", held: "_HeldLoop") -> ToolResult:
        items = value.__aiter__()
        try:
            while True:
                try:
                    piece = await held.awaiting(anext(items))
                except StopAsyncIteration:
                    return ToolResult("")
                pieces.add(as_text(piece))
                if pieces.length > _LONGEST:
                    return _too_long()
        finally:
            if hasattr(items, "aclose"):
                await items.aclose()

    async def _in_own_thread(self, call: Callable[[], object], pieces: "_Pieces") -> object:
        """The result of a call, or its value if that is to be awaited in the event loop."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()

        def settle(value: object) -> None:
            if not answer.done():
                answer.set_result(value)
            elif inspect.iscoroutine(value):
                value.close()  # nobody waits for it any more

        def yielded(value: Iterator[object]) -> ToolResult:
            length = 0
            for piece in value:
                if answer.done():  # out of time: here this thread can stop
                    break
                text = as_text(piece)
                length += len(text)
                loop.call_soon_threadsafe(pieces.add, text)
                if length > _LONGEST:
                    return _too_long()
            return ToolResult("")

        def body() -> None:
            try:
                value: object = call()
                if isinstance(value, Generator):
                    value = yielded(value)
                elif not (inspect.isawaitable(value) or hasattr(value, "__aiter__")):
                    value = as_result(value)
            except BaseException as error:  # a thread has nobody above it to raise to
                value = self._failure(error)
            with suppress(RuntimeError):  # the loop closed before a stray thread came to its end
                loop.call_soon_threadsafe(settle, value)

        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(body,), name=f"tool {self.name}", daemon=True
        )
        thread.start()
        try:
            return await answer
        finally:
            if not answer.done() or answer.cancelled():
                self._leave_behind(thread)

    def _failure(self, error: BaseException) -> ToolResult:
        result = as_failure(error, self.on_error, __file__)
        if result.error is not ErrorKind.UNAVAILABLE:
            _log.error("the tool %r raised %s", self.name, type(error).__name__, exc_info=error)
        return result

    def _leave_behind(self, call: threading.Thread | asyncio.Task[ToolResult]) -> None:
        self._left_behind = {call, *filter(_runs, self._left_behind)}


class _Pieces:
    """The texts a generator has yielded."""

    def __init__(self, on_output: Callable[[str], None] | None) -> None:
        self.texts: list[str] = []
        self.length = 0
        self._on_output = on_output

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.length += len(text)
        if self._on_output is not None:
            self._on_output(text)

    def before(self, result: ToolResult) -> ToolResult:
        """The result, after what was yielded; nothing that is yielded later is heard."""
        self._on_output = None
        text = "\n".join(filter(None, ["".join(self.texts).rstrip("\n"), result.text]))
        return dataclasses.replace(result, text=text) if self.texts else result


class _HeldLoop:
    """Seconds for which the steps of a coroutine have held the event loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def awaiting(self, work: Awaitable[R]) -> Awaitable[R]:
        """The same work, measured."""
        return _Measured(work, self)


class _Measured(Generic[R]):
    """Work whose steps are timed: the time between them is not its own."""

    def __init__(self, work: Awaitable[R], held: _HeldLoop) -> None:
        self._work, self._held = work, held

    def __await__(self) -> Generator[Any, Any, R]:
        steps = self._work.__await__()
        step: Callable[[], Any] = partial(next, steps)
        while True:
            start = time.perf_counter()
            try:
                waits_for = step()
            except StopIteration as end:
                value: R = end.value
                return value
            finally:
                self._held.seconds += time.perf_counter() - start
            try:
                step = partial(_send, steps, (yield waits_for))
            except BaseException as error:
                step = partial(_throw, steps, error)


class _FunctionSession:
    """Functions keep no state: a copy is a new one."""

    stateless: Literal[True] = True

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
    *, name: str | None = None, description: str | None = None, on_error: OnError | None = None
) -> Callable[[Callable[..., Any]], FunctionTool]: ...
@overload
def tool(
    function: Callable[..., Any],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    on_error: OnError | None = None,
) -> FunctionTool: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    on_error: OnError | None = None,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function a tool: `tool(f)`, `@tool`, or `@tool(name="...", on_error="...")`.

    >>> @tool
    ... def shout(text: str) -> str:
    ...     "Say it louder."
    ...     return text.upper()
    >>> shout.description, shout("hello")
    ('Say it louder.', 'HELLO')
    """
    make = partial(FunctionTool, name=name, description=description, on_error=on_error)
    return make if function is None else make(function)


def _send(steps: Any, value: Any) -> Any:
    return steps.send(value) if hasattr(steps, "send") else next(steps)


def _throw(steps: Any, error: BaseException) -> Any:
    if not hasattr(steps, "throw"):
        raise error
    return steps.throw(error)


def _runs(call: threading.Thread | asyncio.Task[ToolResult]) -> bool:
    return call.is_alive() if isinstance(call, threading.Thread) else not call.done()


def _out_of_time(seconds: float) -> ToolResult:
    return ToolResult(f"The time limit of {seconds:g} s was reached.", ErrorKind.TIMEOUT)


def _too_long() -> ToolResult:
    return ToolResult(f"Stopped after {_LONGEST} characters.", ErrorKind.EXCEPTION)
