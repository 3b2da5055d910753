"""Runs of teams on disk: each call of a member once it is over, and who is at work on which run."""

import asyncio
import json
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import TypeAdapter, ValidationError

from ...rollout.episode_log import dump_record
from ...rollout.trajectory import Trajectory
from ...tools.errors import DataError, UsageError
from ..sqlite_file import SqliteFile

__all__ = ["Runs", "SavedCall", "SavedRun"]

VERSION = 3
"""3: what a call said, and a run's owner. Runs of versions 1 and 2 are read and resumed."""
_TABLES = """
create table if not exists team_version (version integer not null);
create table if not exists team_run (
  id text primary key, question text not null, made text not null, started real not null,
  ended text, owner text, alive real);
create table if not exists team_call (
  run text not null references team_run on delete cascade, key text not null, data text not null,
  said text, primary key (run, key));
"""
_ADDED = (("team_run", "owner text"), ("team_run", "alive real"), ("team_call", "said text"))
_TRAJECTORY: TypeAdapter[Trajectory] = TypeAdapter(Trajectory)
_OVER = ("accepted", "stopped", "rounds")
_BEAT = 5.0
"""Seconds between two signs of life of a run's owner; after six without one it is taken as dead."""


@dataclass(frozen=True, slots=True)
class SavedCall:
    """A finished call of a member; `said` is its reply without thoughts (None in version 2)."""

    trajectory: Trajectory
    said: str | None


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it was kept: what was asked, by what team (`made`), and its finished calls.

    `ended` says why it ended; None while it has not. `started` is Unix time, seconds. `alive` is
    True while a process is at work on it.
    """

    id: str
    question: str
    made: str
    started: float
    ended: str | None
    alive: bool = False
    calls: tuple[SavedCall, ...] = ()

    @property
    def resumable(self) -> bool:
        """True unless the team is done, or at work on it."""
        return self.ended not in _OVER and not self.alive

    def refuse_other(self, made: str) -> None:
        """Raise UsageError, which says what differs, where this is not what the team is made of."""
        was, now = json.loads(self.made), json.loads(made)
        differ = [
            f"{name}={json.dumps(was[name])}, here {json.dumps(now[name])}"
            for name in now
            if name in was and was[name] != now[name]
        ]
        if differ:
            raise UsageError(f"the run {self.id} is another team's, made with {'; '.join(differ)}")


class Runs(SqliteFile):
    """A file of runs (SQLite, WAL), readable by its owner alone. The calls are enough to resume a
    run: the graph is gone through again, and each call that is kept is not made again.

    Its methods are short and block; in an event loop they belong in a thread. Raises DataError
    where the file can't be used.
    """

    _CONTENT = "a team's runs"
    _OPTIONS: ClassVar = {"timeout": 30, "isolation_level": "IMMEDIATE"}

    def __init__(self, path: str | Path) -> None:
        if str(path) == ":memory:":
            raise UsageError("runs are kept to be resumed later: name a file, not :memory:")
        super().__init__(Path(path))

    def _prepare(self) -> None:
        self._owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._db.executescript(_TABLES)
        with self._db:
            self._db.execute("begin immediate")
            found = self._db.execute("select version from team_version").fetchone()
            if found is not None and found[0] > VERSION:
                raise DataError(f"{self.path} was written by a newer version: upgrade interlace")
            for table, column in _ADDED:
                names = [row[1] for row in self._db.execute(f"pragma table_info({table})")]
                if column.split()[0] not in names:
                    self._db.execute(f"alter table {table} add column {column}")
            if found is None or found[0] < VERSION:
                self._db.execute("delete from team_version")
                self._db.execute("insert into team_version values (?)", [VERSION])

    def begin(self, id: str, question: str, made: str) -> None:
        """A run begins, and is ours."""
        self._write(
            "insert into team_run values (?, ?, ?, ?, null, ?, ?)",
            *(id, question, made, time.time(), self._owner, time.time()),
        )

    def claim(self, id: str) -> None:
        """Take a run over that nobody is at work on. Raises UsageError where somebody is."""
        owner, alive = self._rows("where id = ?", id)[0][5:]
        taken = not _lives(owner, alive) and self._write(
            "update team_run set owner = ?, alive = ?, ended = null "
            "where id = ? and owner is ? and alive is ?",  # nobody was quicker
            *(self._owner, time.time(), id, owner, alive),
        )
        if not taken:
            raise UsageError(f"the run {id} is still under way: wait for it, or stop it")

    @asynccontextmanager
    async def held(self, id: str) -> AsyncIterator[None]:
        """Signs of life of a run that is ours, until the context is left."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(_BEAT)
                with suppress(DataError):  # the next call that is kept will say so
                    await asyncio.to_thread(
                        self._write,
                        "update team_run set alive = ? where id = ? and owner = ?",
                        *(time.time(), id, self._owner),
                    )

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.shield(asyncio.to_thread(self._release, id))

    def add(self, id: str, key: str, trajectory: Trajectory, said: str) -> None:
        """One of its calls is over."""
        data = dump_record(_TRAJECTORY, trajectory).decode()
        self._write("insert or replace into team_call values (?, ?, ?, ?)", id, key, data, said)

    def end(self, id: str, why: str) -> None:
        """It has ended."""
        self._write("update team_run set ended = ? where id = ?", why, id)

    def all(self) -> list[SavedRun]:
        """All runs without their calls, the latest first."""
        rows = self._rows("order by started desc, id")
        return [SavedRun(*row[:5], _lives(*row[5:])) for row in rows]

    def find(self, id: str) -> SavedRun | None:
        """A run with its finished calls, or None. Raises DataError where it is broken."""
        rows = self._rows("where id = ?", id)
        if not rows:
            return None
        try:
            with self._lock:
                found = self._db.execute(
                    "select data, said from team_call where run = ? order by rowid", [id]
                ).fetchall()
            calls = tuple(SavedCall(_TRAJECTORY.validate_json(data), said) for data, said in found)
        except (sqlite3.Error, ValidationError) as error:
            raise DataError(f"{self.path}: the run {id} can't be read: {error}") from error
        return SavedRun(*rows[0][:5], _lives(*rows[0][5:]), calls)

    def load(self, id: str) -> SavedRun:
        """As `find`. Raises DataError if there is none."""
        found = self.find(id)
        if found is None:
            raise DataError(f"there is no run {id!r} in {self.path}")
        return found

    def delete(self, id: str) -> None:
        """Keep nothing more of a run. Raises UsageError where somebody is at work on it."""
        if any(run.id == id and run.alive for run in self.all()):
            raise UsageError(f"the run {id} is still under way: wait for it, or stop it")
        self._write("delete from team_run where id = ?", id)

    def _release(self, id: str) -> None:
        self._write(
            "update team_run set owner = null, alive = null where id = ? and owner = ?",
            *(id, self._owner),
        )

    def _rows(
        self, rest: str, *values: str
    ) -> list[tuple[str, str, str, float, str | None, str | None, float | None]]:
        try:
            with self._lock:
                return self._db.execute(
                    f"select id, question, made, started, ended, owner, alive from team_run {rest}",
                    values,
                ).fetchall()
        except sqlite3.Error as error:
            raise DataError(f"can't read {self.path}: {error}") from error

    def _write(self, statement: str, *values: str | int | float | None) -> int:
        """Rows that were changed."""
        try:
            with self._lock, self._db:
                return self._db.execute(statement, values).rowcount
        except sqlite3.Error as error:
            raise self._unkept(error) from error


def _lives(owner: str | None, alive: float | None) -> bool:
    """True while a run's owner shows signs of life; a process of this machine is looked for."""
    if owner is None or alive is None or time.time() - alive > 6 * _BEAT:
        return False
    host, process, _ = owner.split(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
