"""Runs of teams on disk: each call as it is finished, beside LangGraph's own checkpoints."""

import json
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ...rollout.episode_log import dump_record
from ...rollout.trajectory import Trajectory
from ...tools.errors import DataError, UsageError

__all__ = ["Runs", "SavedRun"]

VERSION = 2
"""2: a call's trajectory is of schema 3. Rows of version 1 are read."""
_TABLES = """
create table if not exists team_version (version integer not null);
create table if not exists team_run (
  id text primary key, question text not null, made text not null, started real not null,
  ended text);
create table if not exists team_call (
  run text not null references team_run on delete cascade, key text not null, data text not null,
  primary key (run, key));
"""
_TRAJECTORY: TypeAdapter[Trajectory] = TypeAdapter(Trajectory)


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as it was kept: what was asked, by what team (`made`), and its finished calls.

    `ended` says why it ended; None while it has not. `started` is Unix time, seconds.
    """

    id: str
    question: str
    made: str
    started: float
    ended: str | None
    calls: tuple[Trajectory, ...] = ()

    def refuse_other(self, made: str) -> None:
        """Raise UsageError, which says what differs, where this is not what the team is made of."""
        was, now = json.loads(self.made), json.loads(made)
        differ = [
            f"{name}={json.dumps(was.get(name))}, here {json.dumps(now[name])}"
            for name in now
            if was.get(name) != now[name]
        ]
        if differ:
            raise UsageError(f"the run {self.id} is another team's, made with {'; '.join(differ)}")


class Runs:
    """A file of runs (SQLite, WAL), readable by its owner alone. LangGraph's saver has its tables
    in the same file: the graph's steps are there, the tokens here.

    Raises DataError where the file can't be used.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma foreign_keys = on")
            self._db.executescript(_TABLES)
            found = self._db.execute("select version from team_version").fetchone()
            if found is None:
                self._write("insert into team_version values (?)", VERSION)
            elif found[0] > VERSION:
                raise DataError(f"{self.path} was written by a newer version: upgrade interlace")
            elif found[0] < VERSION:
                self._write("update team_version set version = ?", VERSION)
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"can't keep a team's runs in {self.path}: {error}") from error

    def begin(self, id: str, question: str, made: str) -> None:
        """A run begins."""
        self._write(
            "insert into team_run values (?, ?, ?, ?, null)", id, question, made, time.time()
        )

    def add(self, id: str, key: str, trajectory: Trajectory) -> None:
        """One of its calls is over."""
        data = dump_record(_TRAJECTORY, trajectory).decode()
        self._write("insert or replace into team_call values (?, ?, ?)", id, key, data)

    def end(self, id: str, why: str) -> None:
        """It has ended."""
        self._write("update team_run set ended = ? where id = ?", why, id)

    def all(self) -> list[SavedRun]:
        """All runs without their calls, the latest first."""
        return [SavedRun(*row) for row in self._rows("order by started desc, id")]

    def load(self, id: str) -> SavedRun:
        """A run with its finished calls. Raises DataError if there is none, or it is broken."""
        rows = self._rows("where id = ?", id)
        if not rows:
            raise DataError(f"there is no run {id!r} in {self.path}")
        with self._lock:
            found = self._db.execute(
                "select data from team_call where run = ? order by rowid", [id]
            ).fetchall()
        try:
            calls = tuple(_TRAJECTORY.validate_json(data) for (data,) in found)
        except ValidationError as error:
            raise DataError(f"{self.path}: the run {id} can't be read: {error}") from error
        return SavedRun(*rows[0], calls)

    def delete(self, id: str) -> None:
        """Keep nothing more of a run; the steps of its graph are LangGraph's (`Team.forget`)."""
        self._write("delete from team_run where id = ?", id)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _rows(self, rest: str, *values: str) -> list[tuple[str, str, str, float, str | None]]:
        try:
            with self._lock:
                return self._db.execute(
                    f"select id, question, made, started, ended from team_run {rest}", values
                ).fetchall()
        except sqlite3.Error as error:
            raise DataError(f"can't read {self.path}: {error}") from error

    def _write(self, statement: str, *values: str | int | float) -> None:
        try:
            with self._lock, self._db:
                self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise DataError(f"can't write {self.path}: {error}") from error
