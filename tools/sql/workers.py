"""The processes in which queries run: a few, shared by all sessions, killed when they overrun."""

import asyncio
import concurrent.futures
import importlib.util
import json
import os
import signal
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, ToolUnavailable, UsageError
from ..forks import renew_in_child
from ..process_pool import CannotStart, Overrun, PooledProcess, ProcessDied, ProcessPool

__all__ = ["SQLITE", "DatabaseSource", "Driver", "Workers"]

_START_SECONDS = 20.0
_OPEN_SECONDS = 10.0
_GRACE_SECONDS = 1.5
"""How much later than its deadline a query that has not come back is killed. The process's own
alarm rings before."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The part of a process that speaks to one database system: `NAME_worker.py`.

    `package` is what it imports, from the extra of the same name; `variables` are the prefixes of
    environment variables that it is given, and `most_open` how many databases a process keeps open.
    """

    name: str
    package: str | None = None
    variables: tuple[str, ...] = ()
    most_open: int = 8

    def paths(self) -> list[str]:
        """The folder of its package. Raises MissingExtra where that is not installed."""
        if self.package is None:
            return []
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise MissingExtra(f"a database of {self.name}", self.name)
        return [str(Path(found.submodule_search_locations[0]).parent)]


SQLITE = Driver("sqlite")


@dataclass(frozen=True, slots=True)
class DatabaseSource:
    """The source of a database: a file or address, or the image of one. `key` is unique to it."""

    key: str
    path: str | None = field(repr=False)
    """Not shown: an address may hold a password."""
    image: bytes = field(default=b"", repr=False)
    driver: Driver = SQLITE


class _SqlProcess(PooledProcess):
    """A process of `worker.py` and the databases it has open."""

    def __init__(self, memory: int, driver: Driver) -> None:
        # Isolated and without site: it starts in 30 ms and sees no user's modules.
        super().__init__(
            Path(__file__).with_name("worker.py"),
            str(memory),
            driver.name,
            *driver.paths(),
            flags="-IS",
            # A local time is the same on every machine.
            environment={"TZ": "UTC"}
            | {k: v for k, v in os.environ.items() if k.startswith(driver.variables)},
            cwd="/",
            start_seconds=_START_SECONDS,
        )
        self.open: OrderedDict[str, None] = OrderedDict()
        self._most_open = driver.most_open

    async def query(self, source: DatabaseSource, request: dict[str, Any], seconds: float) -> Any:
        """The reply to a request about a database. Raises as `Workers.query` and `ask_async`."""
        if source.key not in self.open:
            await self._open_database(source)
        self.open.move_to_end(source.key)
        return await self._ask(request | {"key": source.key}, b"", seconds)

    async def _open_database(self, source: DatabaseSource) -> None:
        close = []
        while len(self.open) >= self._most_open:
            close.append(self.open.popitem(last=False)[0])
        request = {
            "key": source.key,
            "path": source.path,
            "image": len(source.image),
            "close": close,
        }
        try:
            reply = await self._ask(request, source.image, _OPEN_SECONDS)
        except (Overrun, ProcessDied) as error:
            raise ToolUnavailable(f"the database can't be opened: {error}") from None
        if "error" in reply:
            raise ToolUnavailable(f"the database can't be opened: {reply['error']}")
        self.open[source.key] = None

    async def _ask(self, request: dict[str, Any], payload: bytes, seconds: float) -> Any:
        line = json.dumps(request | {"seconds": seconds}).encode() + b"\n"
        try:
            return json.loads(await self.ask_async(line + payload, seconds + _GRACE_SECONDS))
        except ProcessDied as error:
            if error.code == -signal.SIGALRM:  # its own alarm
                raise Overrun("it did not come back in time") from None
            raise


class Workers:
    """At most `most` processes, started when needed and shared by all queries.

    They live while a caller holds them (`async with workers.held()`) or a query runs. `memory`
    bounds what a database may allocate in each, in bytes. `patience` is how long a query waits for
    a free one, in seconds. May be used from several threads and event loops at once.
    """

    def __init__(
        self, most: int | None = None, *, memory: int = 128 << 20, patience: float = 10.0
    ) -> None:
        """`most`: as many as there are processors, at most 4, where not given."""
        if most is None:
            most = max(1, min(4, os.cpu_count() or 1))
        if most < 1 or memory < 8 << 20 or patience < 0:
            raise UsageError("SQL needs at least one worker, 8 MB of memory and no less than 0 s")
        self.most = most
        self.memory = memory
        self.patience = patience
        counters = self.counters = Counter[str]()
        """`queries`, `starts`, `waits` for a free worker, and by reason why one was ended:
        `overrun`, `died`, `cancelled`, `failed`."""

        def start(driver: Driver) -> _SqlProcess:
            counters["starts"] += 1
            return _SqlProcess(memory, driver)

        self._start = start
        self.pools: dict[str, ProcessPool[_SqlProcess]] = {}
        """The processes of each driver, by its name."""
        self._lock = threading.Lock()
        self._users = 0
        self._running = 0
        self._waiting: deque[concurrent.futures.Future[None]] = deque()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Begin with all seats free in a forked process."""
        self._lock = threading.Lock()
        self._users = self._running = 0
        self._waiting.clear()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep started workers for the next query; the last one to leave ends them."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    for pool in self.pools.values():
                        pool.close()

    async def query(self, source: DatabaseSource, request: dict[str, Any], seconds: float) -> Any:
        """A worker's reply. Raises Overrun, ProcessDied or ToolUnavailable."""
        async with self.held(), self._seat():
            self.counters["queries"] += 1
            ended = "cancelled"
            try:
                with self._pool(source.driver).one(
                    lambda process: source.key in process.open
                ) as process:
                    reply = await process.query(source, request, seconds)
                ended = ""
                return reply
            except (Overrun, ProcessDied, CannotStart, ToolUnavailable) as error:
                ended = {Overrun: "overrun", ProcessDied: "died"}.get(type(error), "failed")
                if isinstance(error, CannotStart):
                    raise ToolUnavailable(f"the process for SQL does not start: {error}") from None
                raise
            finally:
                if ended:
                    self.counters[ended] += 1

    def _pool(self, driver: Driver) -> ProcessPool[_SqlProcess]:
        with self._lock:
            if driver.name not in self.pools:
                self.pools[driver.name] = ProcessPool(partial(self._start, driver))
            return self.pools[driver.name]

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[None]:
        """One of the `most` seats; the query that waits longest gets the next free one.

        Raises ToolUnavailable after `patience`.
        """
        turn: concurrent.futures.Future[None] | None = None
        with self._lock:
            if self._running < self.most:
                self._running += 1
            else:
                turn = concurrent.futures.Future()
                self._waiting.append(turn)
                self.counters["waits"] += 1
        if turn is not None:
            try:
                async with asyncio.timeout(self.patience):
                    await asyncio.wrap_future(turn)
            except BaseException as error:
                if not turn.cancel():  # the seat came, but we can't take it
                    self._free_seat()
                if isinstance(error, TimeoutError):
                    raise ToolUnavailable(
                        f"no worker for SQL became free within {self.patience:g} s: allow more of "
                        "them, or fewer queries at once"
                    ) from None
                raise
        try:
            yield
        finally:
            self._free_seat()

    def _free_seat(self) -> None:
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            self._running -= 1
