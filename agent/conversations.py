"""Conversations on disk: one SQLite file, every finished turn of each, written as it is finished.

A conversation is what its ledgers are: spans of tokens. They only grow, so a save adds rows and
rewrites none, and a process that is killed leaves all turns that were finished.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, TypeAdapter

from ..rollout.episode_log import dump_record
from ..rollout.history import Mark
from ..rollout.ledger import Ledger, Span
from ..rollout.task import Task
from ..rollout.trajectory import Episode, StopReason, Trajectory, Turn
from ..tools.errors import DataError
from ..tools.files import data_dir
from .sqlite_file import SqliteFile

__all__ = [
    "Asked",
    "ConversationElsewhere",
    "Conversations",
    "Match",
    "Saved",
    "Summary",
    "default_file",
]

VERSION = 2
_TABLES = """
create table if not exists conversation (
  id text primary key, title text not null, model text not null, format text not null,
  tools text not null, started real not null, updated real not null, seconds real not null,
  exact integer not null, system text not null default '');
create table if not exists question (
  conversation text not null references conversation on delete cascade, number integer not null,
  text text not null, mark text not null, stop text, answer text,
  primary key (conversation, number));
create table if not exists span (
  conversation text not null references conversation on delete cascade,
  ledger integer not null, number integer not null, data text not null,
  primary key (conversation, ledger, number));
create table if not exists turn (
  conversation text not null references conversation on delete cascade, number integer not null,
  data text not null, primary key (conversation, number));
"""
_TURN: TypeAdapter[Turn] = TypeAdapter(Turn)
_MARK: TypeAdapter[Mark] = TypeAdapter(Mark)
_TOOLS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
_SECONDS: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(allow_inf_nan=False)])


class ConversationElsewhere(DataError):
    """Another process has added to the conversation."""

    def __init__(self) -> None:
        super().__init__(
            "the conversation is continued by another process, and its turns are kept there: end "
            "that one, or begin another conversation"
        )


def default_file() -> Path:
    """The file that keeps conversations: below `$XDG_DATA_HOME`, else `~/.local/share`."""
    return data_dir() / "conversations.db"


@dataclass(slots=True)
class Asked:
    """One question of a conversation: where it stands, and how it ended.

    `stop` is the trajectory's: None while it is answered, and after a crash, and `ENDED` for an
    `answer` in plain text.
    """

    question: str
    mark: Mark
    stop: StopReason | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list. `started` and `updated` are Unix time, seconds."""

    id: str
    title: str
    model: str
    format: str
    tools: tuple[str, ...]
    started: float
    updated: float
    questions: int


@dataclass(frozen=True, slots=True)
class Match:
    """A question that was found, its answer, and its conversation's id and time."""

    id: str
    updated: float
    question: str
    answer: str | None


@dataclass(slots=True)
class Saved:
    """A conversation as it was read back: its record, its questions, and what is on the disk."""

    episode: Episode
    asked: list[Asked]
    tools: tuple[str, ...]
    spans: list[int] = field(default_factory=list)
    """Spans of each ledger that are on the disk."""
    turns: int = 0
    system: str = ""
    """The system prompt in the application's words."""


class Conversations(SqliteFile):
    """A file of conversations. Made where it is missing, readable by its owner alone.

    Raises DataError where the file can't be used.

    Example:
        agent = Agent(conversations=Conversations("talks.db"))
        async with agent.conversation(resume="4f2a90c1d3e7") as chat:
            await chat.ask("And squared?")
    """

    _CONTENT = "conversations"
    _OPTIONS: ClassVar = {"timeout": 10}

    def __init__(self, path: str | Path | None = None) -> None:
        super().__init__(default_file() if path is None else Path(path))

    def _prepare(self) -> None:
        self._db.execute("pragma synchronous = normal")
        (version,) = self._db.execute("pragma user_version").fetchone()
        if version > VERSION:
            raise DataError(f"{self.path} was written by a newer version: upgrade interlace")
        if version == 1:
            self._add_system()
        self._db.executescript(f"{_TABLES} pragma user_version = {VERSION};")

    def _add_system(self) -> None:
        """Bring a file of version 1 up to date, once if two processes open it."""
        with self._db as db:
            db.execute("begin immediate")
            if db.execute("pragma user_version").fetchone() == (1,):
                db.execute("alter table conversation add system text not null default ''")
                db.execute(f"pragma user_version = {VERSION}")

    def all(self) -> list[Summary]:
        """All of them, the one that was talked in last first."""
        with self._reading() as db:
            rows = db.execute(
                "select id, title, model, format, tools, started, updated, (select count(*) from "
                "question where conversation = id) from conversation order by updated desc, id"
            ).fetchall()
            return [_summary(*row) for row in rows]

    def search(self, words: str) -> list[Match]:
        """The questions and answers that hold all of these words, in any case, latest first."""
        terms = words.casefold().split()
        with self._reading() as db:
            rows = db.execute(
                "select conversation, updated, text, answer from question join conversation on "
                "id = conversation order by updated desc, conversation, number"
            )
            return [
                Match(str(id), _SECONDS.validate_python(updated), question, answer)
                for id, updated, question, answer in rows
                if all(term in f"{question}\n{answer or ''}".casefold() for term in terms)
            ]

    def find(self, start: str | None = None) -> str:
        """The id that begins so; without one, that of the latest. Raises DataError."""
        ids = [summary.id for summary in self.all()]
        found = [id for id in ids if id.startswith(start)] if start else ids[:1]
        if start in found:
            return start
        if len(found) != 1:
            what = f"no conversation {start!r}" if start else "no conversation yet"
            what = f"{len(found)} conversations whose id begins with {start}" if found else what
            raise DataError(f"there is {what}; `interlace conversations` lists them")
        return found[0]

    def load(self, id: str) -> Saved:
        """A conversation as it is: up to its last finished turn. Raises DataError."""
        with self._reading() as db:
            row = db.execute(
                "select title, model, format, tools, started, seconds, exact, system from "
                "conversation where id = ?",
                [id],
            ).fetchone()
            if row is None:
                raise DataError(f"there is no conversation {id!r} in {self.path}")
            title, model, format, tools, started, seconds, exact, system = row
            trajectory = Trajectory(model=model, format=format, token_exact=bool(exact))
            spans = "select ledger, data from span where conversation = ? order by ledger, number"
            for number, data in db.execute(spans, [id]):
                if number == len(trajectory.ledgers):
                    trajectory.ledgers.append(Ledger())
                if number < 0 or number != len(trajectory.ledgers) - 1:
                    raise ValueError(f"a span of ledger {number} follows none of the one before")
                trajectory.ledger.append(Span.from_json(json.loads(data)))
            turns = db.execute(
                "select data from turn where conversation = ? order by number", [id]
            ).fetchall()
            trajectory.turns = [_TURN.validate_json(data) for (data,) in turns]
            asked = db.execute(
                "select text, mark, stop, answer from question where conversation = ? "
                "order by number",
                [id],
            ).fetchall()
            questions = [_asked(*row) for row in asked]
            names = _TOOLS.validate_json(tools)
            started, seconds = map(_SECONDS.validate_python, (started, seconds))
        if questions:
            last = questions[-1]
            trajectory.stop = last.stop
            trajectory.answer = last.answer if last.stop is StopReason.ANSWERED else None
        episode = Episode(id, Task(id, title), id, 0, [trajectory], started=started)
        episode.seconds = seconds
        lengths = [len(ledger.spans) for ledger in trajectory.ledgers]
        turn_count = len(trajectory.turns)
        return Saved(episode, questions, names, lengths, turn_count, str(system))

    def delete(self, id: str) -> None:
        """Forget one."""
        with self._writing() as db:
            db.execute("delete from conversation where id = ?", [id])

    def save(self, saved: Saved, finished: int) -> None:
        """Write what is new: questions, spans, and turns up to the first `finished` of them."""
        episode, trajectory = saved.episode, saved.episode.trajectory
        id = episode.id
        with self._writing() as db:
            values = (id, episode.task.question, trajectory.model, trajectory.format)
            db.execute(
                "insert into conversation values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "on conflict (id) do update set updated = excluded.updated, "
                "seconds = excluded.seconds, exact = excluded.exact",
                [
                    *values,
                    json.dumps(saved.tools),
                    episode.started,
                    time.time(),
                    episode.seconds,
                    trajectory.token_exact,
                    saved.system,
                ],
            )
            for number, one in enumerate(saved.asked):
                row = one.question, json.dumps(asdict(one.mark)), one.stop, one.answer
                db.execute(
                    "insert into question values (?, ?, ?, ?, ?, ?) on conflict do update set "
                    "stop = excluded.stop, answer = excluded.answer",
                    [id, number, *row],
                )
            known = saved.spans + [0] * (len(trajectory.ledgers) - len(saved.spans))
            spans = [
                (id, at, number, json.dumps(span.to_json()))
                for at, ledger in enumerate(trajectory.ledgers)
                for number, span in enumerate(ledger.spans[known[at] :], known[at])
            ]
            db.executemany("insert into span values (?, ?, ?, ?)", spans)
            turns = enumerate(trajectory.turns[saved.turns : finished], saved.turns)
            rows = [(id, number, dump_record(_TURN, turn).decode()) for number, turn in turns]
            db.executemany("insert into turn values (?, ?, ?)", rows)
        saved.spans = [len(ledger.spans) for ledger in trajectory.ledgers]
        saved.turns = max(saved.turns, finished)

    def cut(self, saved: Saved, number: int) -> None:
        """Take back what is on the disk from question `number` on; `saved` keeps its questions."""
        id, mark = saved.episode.id, saved.asked[number].mark
        with self._writing() as db:
            for table, known in (("span", sum(saved.spans)), ("turn", saved.turns)):
                count = f"select count(*) from {table} where conversation = ?"
                if db.execute(count, [id]).fetchone()[0] != known:
                    raise ConversationElsewhere
            gone = [id, number]
            db.execute("delete from question where conversation = ? and number >= ?", gone)
            db.execute("delete from turn where conversation = ? and number >= ?", [id, mark.turns])
            db.execute(
                "delete from span where conversation = ? and (ledger >= ? or ledger = ? and "
                "number >= ?)",
                [id, mark.ledgers, mark.ledgers - 1, mark.spans],
            )
        saved.spans = saved.spans[: mark.ledgers]
        if len(saved.spans) == mark.ledgers > 0:
            saved.spans[-1] = min(saved.spans[-1], mark.spans)
        saved.turns = min(saved.turns, mark.turns)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except (sqlite3.Error, ValueError, TypeError, RecursionError, OverflowError) as error:
                why = " ".join(str(error).split())[:300]  # pydantic's words have many lines
                raise DataError(f"can't read conversations from {self.path}: {why}") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db:
                    self._db.execute("begin immediate")
                    yield self._db
            except sqlite3.IntegrityError as error:
                raise ConversationElsewhere from error
            except sqlite3.Error as error:
                raise self._unkept(error) from error


def _summary(id: str, title: str, model: str, format: str, tools: str, *rest: float) -> Summary:
    started, updated, questions = rest
    begun, last = map(_SECONDS.validate_python, (started, updated))
    names = _TOOLS.validate_json(tools)
    return Summary(str(id), str(title), str(model), str(format), names, begun, last, int(questions))


def _asked(question: str, mark: str, stop: str | None, answer: str | None) -> Asked:
    reason = StopReason(stop) if stop else None
    return Asked(question, _MARK.validate_json(mark), reason, answer)
