"""The `python` tool: code goes in, what a notebook would show comes out as text."""

import asyncio
import dataclasses
import resource
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..arguments import read_arguments
from ..base import INTERRUPTED, ErrorKind, ToolResult, ToolSession
from ..errors import ToolUnavailable, UsageError
from ..forks import renew_in_child
from .backend import Backend, SessionLimits, check_limits
from .interpreter import CellError, Died, Interpreter
from .jupyter.backend import JupyterBackend
from .output import CellOutput
from .pool import Counts, Pool, Slot
from .sandbox.backend import SandboxBackend

__all__ = ["PythonArguments", "PythonSession", "PythonTool"]

SESSIONS = {"sandbox": 1_000, "jupyter": 64}
"""The backends, and how many sessions of each may be open at once unless it is said."""
DESCRIPTORS = {"sandbox": 6, "jupyter": 20}
"""File descriptors that a session of each takes: fewer sessions, where fewer of those are left."""

NO_OUTPUT = "(no output)"
GRACE_SECONDS = 1.0
"""How long an interrupted cell has to come to its end before its process is killed."""

_SYNTAX = {"SyntaxError", "IndentationError", "TabError"}


class PythonArguments(BaseModel):
    """The arguments of the `python` tool."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(description="Python source code, run as one notebook cell.")


class PythonTool:
    """A stateful Python interpreter for each session: what one call defines, the next one sees.

    The backend `sandbox` forks an isolated process from one that has numpy, sympy and `modules`
    imported, in milliseconds; it can be forked again with all its state. `isolation` says how it
    is walled off: `full`, `confined` (where namespaces are refused), the stronger of these that
    can be had (`auto`), or `none`; walls that can't be raised make the tool unavailable, never
    weaker. The backend `jupyter` starts an ipykernel, whose isolation is `full` or `none`, and
    which can't be forked. Both show the same text for the same code.

    A session's interpreter is started at its first call, or, if `eager`, when the session is
    opened. At most `sessions` of them live at once; further ones wait up to `patience` seconds
    (then the result is `UNAVAILABLE`). `warm` more are kept ready for sessions to come while the
    tool is in use: while one of its sessions is open, or within `async with tool:`.

    The deadline of a call counts from when its interpreter is ready. At the deadline the cell is
    interrupted; if that does not end it within a second, the process is killed and the next call
    gets a new one. The text always says what became of the variables. A call that shows nothing
    gives `(no output)`. Code sees only a few harmless environment variables, and `variables`.

    >>> async def main() -> None:
    ...     async with PythonTool().session() as session:
    ...         print((await session.call({"code": "x = 6"}, seconds=10)).text)
    ...         print((await session.call({"code": "x * 7"}, seconds=10)).text)
    >>> asyncio.run(main())
    (no output)
    42
    """

    name = "python"
    description = (
        "Runs Python code and returns what it prints and the value of its last expression. "
        "Variables, functions and imports are kept from call to call."
    )
    arguments = PythonArguments

    def __init__(
        self,
        backend: str = "sandbox",
        *,
        isolation: str = "auto",
        limits: SessionLimits | None = None,
        modules: Sequence[str] = (),
        eager: bool = False,
        warm: int = 0,
        sessions: int | None = None,
        patience: float = 600.0,
        characters: int = 100_000,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`characters`: of a longer output the head and the tail are kept. Raises `UsageError`."""
        if backend not in SESSIONS:
            raise UsageError(
                f"the python tool has no backend {backend!r}; there are: {', '.join(SESSIONS)}"
            )
        if isolation not in ("auto", "full", "confined", "none"):
            raise UsageError(f"isolation is auto, full, confined or none, not {isolation!r}")
        if backend == "jupyter" and isolation == "confined":
            raise UsageError(
                "a jupyter kernel is isolated with namespaces or not at all: take "
                "isolation='full', or backend='sandbox'"
            )
        if sessions is None:
            here = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            spare = here - min(100, here // 2)  # for whatever else the program has open
            sessions = max(1, min(SESSIONS[backend], spare // DESCRIPTORS[backend]))
        if sessions < 1 or warm < 0 or warm > sessions or characters < 100:
            raise UsageError(
                "sessions must be 1 or more, warm 0 to sessions, characters 100 or more"
            )
        self.isolation = isolation
        self.eager = eager
        self.patience = patience
        self.characters = characters
        self.counts = Counts()
        variables = dict(variables or {})
        limits = check_limits(limits or SessionLimits())

        def start(folder: Path) -> Backend:
            if backend == "jupyter":
                return JupyterBackend(folder, characters, variables, isolation, limits)
            return SandboxBackend(folder, characters, variables, isolation, limits, modules)

        self._settings = (start, sessions, warm, self.counts)
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._held: dict[
            asyncio.AbstractEventLoop, list[AbstractAsyncContextManager[Pool, bool | None]]
        ] = {}
        self._parents: list[object] = []
        renew_in_child(self)

    def after_fork(self) -> None:
        """Start processes of its own in a forked process."""
        self._parents.append((self._pools, self._held))  # neither used nor ended
        self._pools, self._held = {}, {}

    @property
    def tier(self) -> str:
        """The isolation in use, once the tool is started; before that, the isolation asked for."""
        with suppress(RuntimeError):  # no event loop runs
            pool = self._pools.get(asyncio.get_running_loop())
            if pool is not None:
                return str(pool.backend.details()["isolation"])
        return self.isolation

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session with its own state; leaving it ends its process and removes its files."""
        async with self._pool() as pool:
            session = PythonSession(self, pool)
            try:
                yield session
            finally:
                await session.close()

    async def __aenter__(self) -> "PythonTool":
        """Hold this event loop's processes of the tool from now on, until they were left as often
        as entered. Raises `ToolUnavailable` if they can't start.
        """
        held = self._pool()
        pool = await held.__aenter__()
        try:
            await pool.backend.ready()
        except BaseException:
            await held.__aexit__(None, None, None)
            raise
        self._held.setdefault(asyncio.get_running_loop(), []).append(held)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        held = self._held[loop].pop()
        if not self._held[loop]:
            del self._held[loop]
        await held.__aexit__(None, None, None)

    @asynccontextmanager
    async def _pool(self) -> AsyncIterator[Pool]:
        """The interpreters of this event loop, which live as long as somebody uses them."""
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        for other in list(self._pools):  # other threads change it meanwhile
            if other.is_closed():
                self._pools.pop(other, None)  # left open there: its processes end with it
                self._held.pop(other, None)
        if pool is None:
            pool = self._pools[loop] = Pool(*self._settings)
        pool.users += 1
        try:
            yield pool
        finally:
            pool.users -= 1
            if not pool.users:
                del self._pools[loop]
                await pool.close()


class PythonSession:
    """One trajectory's interpreter."""

    def __init__(self, tool: PythonTool, pool: Pool, slot: Slot | None = None) -> None:
        self._tool = tool
        self._pool = pool
        self._one_at_a_time = asyncio.Lock()
        self._slot = slot
        self._stopping: asyncio.Task[bool] | None = None
        self._closed = False
        self.on_output: Callable[[str], None] | None = None
        """Gets what a cell prints and displays while it runs; see `LiveSession`."""
        self.interrupted: ToolResult | None = None
        """What a cell that was cancelled had shown; see `LiveSession`."""
        self._lost = ""
        """What the next result must tell about variables that are gone."""
        self._numbers: dict[str, int] = {}
        self._starting = (
            asyncio.create_task(self._take_slot()) if tool.eager and slot is None else None
        )

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        """Run a cell; see `ToolSession`."""
        start = time.perf_counter()
        self.interrupted = None
        read = read_arguments(PythonArguments, arguments)
        if isinstance(read, ToolResult):
            return read
        self._pool.counts.calls += 1
        output = CellOutput(self._tool.characters, self._numbers, self.on_output)
        async with self._one_at_a_time:
            try:
                interpreter = await self._ready()
            except ToolUnavailable as error:
                result = ToolResult(str(error), ErrorKind.UNAVAILABLE)
            else:
                try:
                    result = await self._run(interpreter, read.code, output, seconds)
                except asyncio.CancelledError:
                    ended = "The last call was cancelled and its process ended"
                    self._stopping = asyncio.create_task(self._stop(interpreter, ended))
                    output.on_output = None  # what it still shows while it is stopped is for nobody
                    text, kind = output.text(INTERRUPTED), ErrorKind.INTERRUPTED
                    self.interrupted = self._told(ToolResult(text, kind), output, start)
                    raise
        return self._told(result, output, start)

    def _told(self, result: ToolResult, output: CellOutput, start: float) -> ToolResult:
        return dataclasses.replace(
            result,
            seconds=time.perf_counter() - start,
            artifacts=tuple(output.artifacts),
            details={**self.details, **result.details},
        )

    async def ready(self) -> None:
        """Wait until the session has a running interpreter. Raises `ToolUnavailable`."""
        async with self._one_at_a_time:
            await self._ready()

    @property
    def details(self) -> Mapping[str, JsonValue]:
        """How the session is isolated."""
        return self._pool.backend.details()

    async def fork(self) -> "PythonSession":
        """A copy of the session with all its variables and files. Raises `Unforkable`.

        The copy is the caller's to close, or lives no longer than the tool is in use. Where no
        place for it becomes free in time, `ToolUnavailable` is raised.
        """
        async with self._one_at_a_time:
            await self._ready()
            assert self._slot is not None
            slot = await self._pool.copy(self._slot, self._tool.patience)
            copy = PythonSession(self._tool, self._pool, slot)
            copy._lost, copy._numbers = self._lost, dict(self._numbers)
            return copy

    async def read_file(self, path: str) -> bytes:
        """The content of a file in the session's working directory.

        Raises `OSError`, also for what is not an ordinary file inside it or is above 8 MB.
        """
        async with self._one_at_a_time:
            return await (await self._ready()).read_file(path)

    async def write_file(self, path: str, data: bytes) -> None:
        """Put a file into the session's working directory. Raises `OSError`."""
        async with self._one_at_a_time:
            await (await self._ready()).write_file(path, data)

    async def close(self) -> None:
        """End the process, whatever it does, and remove the session's files."""
        self._closed = True
        for task in (self._starting, self._stopping):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
                _ = task.cancelled() or task.exception()  # seen, and of no more interest
        if self._slot is not None:
            slot, self._slot = self._slot, None
            await self._pool.free(slot)

    async def _take_slot(self) -> None:
        slot = await self._pool.take(self._tool.patience)
        if self._closed:
            await self._pool.free(slot)
            raise ToolUnavailable("the session is closed")
        self._slot = slot

    async def _ready(self) -> Interpreter:
        """The session's interpreter, idle: a new one if there is none or the last one died."""
        if self._closed:
            raise ToolUnavailable("the session is closed")
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
            self._stopping = None
        if self._starting is not None:
            await asyncio.wait({self._starting})
            starting, self._starting = self._starting, None
            starting.result()
        if self._slot is None:
            await self._take_slot()
        assert self._slot is not None
        interpreter = self._slot.interpreter
        if interpreter is not None and not interpreter.alive:
            self._pool.counts.ends[ErrorKind.DIED] += 1
            self._drop(
                f"The Python process {interpreter.ending()} since the last call; a new one runs"
            )
        if self._slot.interpreter is None:
            await self._pool.renew(self._slot)
        assert self._slot.interpreter is not None
        return self._slot.interpreter

    async def _run(
        self, interpreter: Interpreter, code: str, output: CellOutput, seconds: float
    ) -> ToolResult:
        kind: ErrorKind | None = None
        note, lost = "", False
        try:
            async with asyncio.timeout(seconds):
                error = await interpreter.execute(code, output)
            if error is not None:
                kind, note = _kind(error), error.text
        except TimeoutError:
            kind, lost = ErrorKind.TIMEOUT, not await self._stop(interpreter)
            end = (
                "the process was ended. Variables are lost"
                if lost
                else ("the cell was interrupted. Variables are kept")
            )
            note = f"[The time limit of {seconds:g} s was reached; {end}.]"
        except Died as died:
            if self._closed:
                return ToolResult("the session was closed", ErrorKind.UNAVAILABLE)
            kind, lost = died.kind, True
            note = f"[The Python process {died} while it ran this cell. Variables are lost.]"
            self._pool.counts.ends[kind] += 1
            self._drop()
        before, self._lost = self._lost, ""
        text = "\n".join(part for part in (before, output.text(note)) if part)
        return ToolResult(text or NO_OUTPUT, kind, state_lost=lost or bool(before))

    async def _stop(self, interpreter: Interpreter, ended: str = "") -> bool:
        """Stop the cell that runs; whether its process, and the variables, outlived that. If not,
        the next result begins with `ended`, if given.
        """
        if await interpreter.interrupt(GRACE_SECONDS):
            return True
        self._pool.counts.ends[ErrorKind.TIMEOUT] += 1
        self._drop(ended)
        return False

    def _drop(self, why: str = "") -> None:
        """Let the interpreter go; `why`, if given, is told with the next result."""
        if self._slot is not None and self._slot.interpreter is not None:
            self._slot.interpreter.close()
            self._slot.interpreter = None
        if why:
            self._lost = _lost(why)


def _lost(why: str) -> str:
    return f"[{why}. Variables of earlier calls are lost.]"


def _kind(error: CellError) -> ErrorKind:
    if error.name == "MemoryError":
        return ErrorKind.MEMORY
    if error.name in _SYNTAX and not error.text.startswith("Traceback"):
        return ErrorKind.SYNTAX
    return ErrorKind.EXCEPTION
