"""The process in which queries run. Started as a script: for SQLite, the standard library suffices.

It answers one request at a time on file descriptor 0, a socket: a line of JSON each way, the image
of a database after the request that opens it. It may be killed at any time. An alarm ends it where
a query does not come back in time. `Connection` below is SQLite's; other systems have theirs in
files of their own.

SQLite's walls: the file is opened read-only, an authorizer lets only reading through, SQLite's
limits are lowered, the heap is bounded, and a progress handler keeps the deadline.
"""

import importlib
import json
import os
import re
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeAlias

ALARM_SECONDS = 0.5
"""How much later than its deadline a query that can't be interrupted ends the process."""
OPERATIONS = 1000
"""Virtual machine steps between two looks at the clock: 9 ms for a scan of 100,000 rows, hardly
more than none; at 100 steps it is 16 ms."""
NAME = 200
"""Characters of a column's name: without an alias it is the whole expression."""
_INTEGER = 300
"""Digits of the largest integer that is handed on as a number."""
_TINY = 1e-300
"""Decimals closer to zero are not handed on as a float."""

PRAGMAS = (
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "index_xinfo",
    "foreign_key_list",
    "collation_list",
)
"""Pragmas that only tell, and may be given a name."""
SETTINGS = ("encoding", "user_version", "application_id", "page_count", "data_version")
"""Pragmas that tell, or change where they are given a value: allowed without one."""
_FUNCTIONS = """
    -> ->> abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling changes char coalesce
    concat concat_ws cos cosh count cume_dist current_date current_time current_timestamp date
    datetime degrees dense_rank exp first_value floor format glob group_concat hex highlight if
    ifnull iif instr json json_array json_array_length json_error_position json_extract
    json_group_array json_group_object json_insert json_object json_patch json_pretty json_quote
    json_remove json_replace json_set json_type json_valid julianday lag last_value lead length
    like likelihood likely ln log log10 log2 lower ltrim match matchinfo max median min mod
    nth_value ntile nullif octet_length offsets percent_rank percentile percentile_cont
    percentile_disc pi pow power printf quote radians random rank replace round row_number
    rtreedepth rtreenode rtrim sign sin sinh snippet soundex sqlite_version sqrt strftime
    string_agg substr substring subtype sum tan tanh time timediff total trim trunc typeof unhex
    unicode unistr unistr_quote unixepoch unlikely upper
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""What can neither write, read files, load code nor make a large value out of nothing."""
ACTIONS = {
    value: name.removeprefix("SQLITE_").lower().replace("_", " ")
    for name, value in vars(sqlite3).items()
    if name.startswith(("SQLITE_CREATE", "SQLITE_DROP"))
    or name in {"SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE", "SQLITE_ATTACH"}
    or name in {"SQLITE_DETACH", "SQLITE_ALTER_TABLE", "SQLITE_REINDEX", "SQLITE_ANALYZE"}
    or name in {"SQLITE_TRANSACTION", "SQLITE_SAVEPOINT", "SQLITE_PRAGMA", "SQLITE_FUNCTION"}
}
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 16_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 200,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
WIDEST = 1000
"""The width or precision that printf accepts: SQLite fills a wide field uninterruptibly."""
_FIELD = re.compile(r"%[-+ 0!#,]*(\*|\d+)?(?:\.(\*|\d+))?")


Identity: TypeAlias = tuple[int, int, bool]


class Connection:
    """One guarded database: a file, or an image that is held in memory."""

    def __init__(self, path: str | None, image: bytes) -> None:
        self.path = path
        self.deadline = 0.0
        self.denied: list[list[str | None]] = []
        """What the last query was refused: an action and what it was about."""
        self._image = image
        self._plain = sqlite3.connect(":memory:")
        self._lower(self._plain)
        self._opened = self._identity()
        self._db = self._open(self._opened)

    def close(self) -> None:
        """Free what it holds."""
        self._db.close()
        self._plain.close()

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a query: rows, or the error."""
        self.denied.clear()
        self.deadline = time.monotonic() + request["seconds"]
        try:
            identity = self._identity()
            if identity != self._opened:
                fresh = self._open(identity)
                self._db.close()
                self._db, self._opened = fresh, identity
            try:
                return self._rows(request)
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            how = "backslashreplace" if request.get("exact") else "replace"
            self._db.text_factory = lambda data: data.decode("utf-8", how)
            try:
                return self._rows(request)
            finally:
                self._db.text_factory = str
        except (sqlite3.Error, sqlite3.Warning, MemoryError, OSError, UnicodeError) as error:
            return self._error(error, request["sql"])

    def _rows(self, request: dict[str, Any]) -> dict[str, Any]:
        cursor = self._db.execute(request["sql"])
        try:
            if cursor.description is None:
                return {"nothing": True}
            return collect([column[0] for column in cursor.description], cursor, request)
        finally:
            cursor.close()

    def _error(self, error: BaseException, sql: str) -> dict[str, Any]:
        message = str(error)
        denied = [list(each) for each in self.denied]
        token = re.fullmatch(r'near "(.+)": syntax error', message, re.DOTALL)
        at = self._place(sql, token[1], message) if token else None
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        return {"error": message, "name": name, "denied": denied, "at": at}

    def _place(self, sql: str, token: str, message: str) -> int | None:
        """The parser's error position: the first `token` up to which the query already fails so.

        SQLite knows, but Python's module does not pass it on. EXPLAIN compiles and runs nothing.
        """
        explain = "" if re.match(r"\s*explain\b", sql, re.IGNORECASE) else "explain "
        edges = [r"\b" if re.match(r"\w", end) else "" for end in (token[0], token[-1])]
        for _, found in zip(
            range(50), re.finditer(re.escape(token).join(edges), sql), strict=False
        ):
            try:
                self._db.execute(explain + sql[: found.end()]).close()
            except (sqlite3.Error, sqlite3.Warning) as error:
                if str(error) == message:
                    return found.start()
        return None

    # -- opening --------------------------------------------------------------------------------

    def _identity(self) -> Identity | None:
        """Device and inode of the file, and True if it has a write-ahead log; None for an image."""
        if self.path is None:
            return None
        status = os.stat(self.path)
        try:
            log = os.stat(self.path + "-wal").st_size > 0
        except FileNotFoundError:
            log = False
        return status.st_dev, status.st_ino, log

    def _open(self, identity: Identity | None) -> sqlite3.Connection:
        if self.path is None or identity is None:
            db = sqlite3.connect(":memory:", isolation_level=None)
            if self._image:
                db.deserialize(self._image)
                self._image = b""
        else:
            # A database in WAL mode without a writer: unless `immutable`, reading it would leave a
            # log and its index next to it, and fail in a folder that can't be written to.
            with open(self.path, "rb") as file:
                wal = file.read(20)[18:] == b"\2\2"
            mode = "ro&immutable=1" if wal and not identity[2] else "ro"
            place = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            uri = f"file:{place}?mode={mode}"
            db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1.0)
        self._guard(db)
        return db

    def _guard(self, db: sqlite3.Connection) -> None:
        with suppress(AttributeError):  # left out of some builds
            db.enable_load_extension(False)
        db.execute("pragma temp_store=memory")
        db.execute("pragma query_only=1")
        self._lower(db)
        for name in ("printf", "format"):
            db.create_function(name, -1, self._printf, deterministic=True)
        # The first use of a virtual table declares it, which the authorizer takes for a write.
        tables = [f"pragma_{name}" for name in (*PRAGMAS, *SETTINGS)] + ["json_each", "json_tree"]
        tables += [
            '"{}"'.format(name.replace('"', '""'))
            for (name,) in db.execute(
                "select name from sqlite_master where sql like 'create virtual table%'"
            )
        ]
        for table in tables:
            with suppress(sqlite3.Error):
                db.execute(f"select * from {table} limit 0").close()
        db.set_authorizer(self._authorize)
        db.set_progress_handler(lambda: time.monotonic() > self.deadline, OPERATIONS)

    def _lower(self, db: sqlite3.Connection) -> None:
        for limit, value in LIMITS.items():
            db.setlimit(limit, value)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second is not None:
            if second.lower() in FUNCTIONS:
                return sqlite3.SQLITE_OK
            first = second
        if action == sqlite3.SQLITE_PRAGMA and first is not None:
            name = first.lower()
            if name in PRAGMAS or (name in SETTINGS and second is None):
                return sqlite3.SQLITE_OK
        self.denied.append([ACTIONS.get(action, "other"), first])
        return sqlite3.SQLITE_DENY

    def _printf(self, *arguments: Any) -> Any:
        """SQLite's own printf (of another connection), without wide fields."""
        if arguments and isinstance(arguments[0], str):
            for field in _FIELD.finditer(arguments[0]):
                for size in field.groups():
                    if size and (size == "*" or len(size) > 4 or int(size) > WIDEST):
                        self.denied.append(["printf", field[0]])
                        raise ValueError
        places = ",".join("?" * len(arguments))
        return self._plain.execute(f"select printf({places})", arguments).fetchone()[0]


def collect(
    names: Sequence[str], cursor: Iterable[Sequence[Any]], request: dict[str, Any]
) -> dict[str, Any]:
    """The reply to a query that gives rows: as much of them as the request's bounds allow."""
    most, columns, cell, size_left = (request[key] for key in ("rows", "columns", "cell", "bytes"))
    rows: list[list[Any]] = []
    total, counted, ended = 0, request["counted"], True
    for row in cursor:
        total += 1
        if len(rows) == total - 1 and len(rows) < most and size_left > 0:
            kept = [_value(value, cell) for value in row[:columns]]
            size_left -= sum(len(v) if isinstance(v, str) else 16 for v in kept)
            size_left -= sum(len(v[0]) for v in kept if isinstance(v, list))
            rows.append(kept)
        elif total - len(rows) > counted:
            ended = False
            break
    shown = [_short(name) for name in names[:columns]]
    return {"columns": shown, "rows": rows, "width": len(names), "total": total, "ended": ended}


def number(text: str) -> int | float | str:
    """A decimal, written out, as a number that holds all its digits, else as text without zeros at
    its end.

    A double holds any number of fifteen digits, unless it is tiny; integers stay in the range of a
    double, so that they can be compared with one.
    """
    if "." not in text:
        return int(text) if len(text) <= _INTEGER else text
    text = text.rstrip("0").rstrip(".")
    digits = text.replace(".", "").lstrip("-0")
    if len(digits) <= 15 and (not digits or abs(float(text)) > _TINY):
        return float(text)
    return text if "." in text else number(text)


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def _value(value: Any, cell: int) -> Any:
    """A value as JSON: text and numbers as they are, else [beginning, size, is a blob]."""
    if isinstance(value, str):
        return value if len(value) <= cell else [value[:cell], len(value), False]
    if isinstance(value, bytes):
        return [value[:cell].hex(), len(value), True]
    return value


# -- the process --------------------------------------------------------------------------------


def _write(reply: dict[str, Any]) -> None:
    data = memoryview(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
    while data:
        data = data[os.write(0, data) :]


def _confine(memory: int, space: int) -> None:
    """Bound what this process may take, should the database's own bounds fail.

    `space` is what the address space may hold beyond `memory`, in bytes.
    """
    bounds = {
        "RLIMIT_AS": memory + space,
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": 16 << 20,  # the index of a write-ahead log, which readers may make
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 0,
    }
    for name, value in bounds.items():
        with suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))


def _driver(name: str, memory: int) -> Any:
    """The class of connections to databases of a system, in a process that is confined."""
    if name == "sqlite":
        _confine(memory, 512 << 20)
        db = sqlite3.connect(":memory:")
        db.execute(f"pragma hard_heap_limit={memory}")
        db.close()
        return Connection
    # The files beside this one, without the package's own imports, which take long.
    package = ModuleType("drivers")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules.update({"drivers": package, "drivers.worker": sys.modules[__name__]})
    driver = importlib.import_module(f"drivers.{name}_worker")
    driver.prepare(memory)
    _confine(memory, driver.SPACE)
    return driver.Connection


def main(memory: int, driver: str, *paths: str) -> None:
    """Answer requests until the other side is gone. `paths`: folders of the driver's packages."""
    sys.path += paths
    connect = _driver(driver, memory)
    connections: dict[str, Any] = {}
    requests = os.fdopen(0, "rb")
    _write({"ready": True})
    for line in requests:
        request = json.loads(line)
        key = request["key"]
        # From the start of every request: opening a database may take long too.
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + ALARM_SECONDS)
        if "sql" in request:
            reply = connections[key].query(request)
        else:
            image = requests.read(request["image"])
            for old in request["close"]:
                connections.pop(old).close()
            try:
                connections[key] = connect(request["path"], image)
                reply = {"opened": True}
            except Exception as error:  # boundary: what a driver raises for a file that is damaged
                reply = {"error": str(error) or type(error).__name__}
            del image
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(reply)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
