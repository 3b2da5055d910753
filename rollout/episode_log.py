"""Episodes on disk: an append-only JSONL log, readable after a crash; Parquet as an export."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from ..tools.errors import DataError, MissingExtra
from ..tools.files import append_whole, open_ordinary, write_beside, write_error
from ..tools.unpack import open_unpacked, reading
from .ledger import Ledger
from .trajectory import SCHEMA_VERSION, Episode, Trajectory, as_shared

__all__ = ["EpisodeLog", "dump_record", "export_parquet", "read_episodes"]

T = TypeVar("T")

_ADAPTER: TypeAdapter[Episode] = TypeAdapter(Episode)
_RECORD = b'{"id":'
"""How every record begins."""

_LONGEST_LINE = 1_000_000_000
"""Bytes; a longer line is no episode, and would fill the memory."""


class EpisodeLog:
    """An open log: each `append` is one line in one write, so a killed writer tears at most its
    last line, and opening the log again removes what was torn.

    Raises DataError where the file can't be written or another process writes to it.

    Example:
        with EpisodeLog("t.jsonl") as log:
            async for episode in runner.run(tasks, n=8):
                log.append(episode)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise DataError(f"{self.path} is being written by another process") from error
        except OSError as error:
            os.close(self._file)
            raise DataError(f"can't lock {self.path}: {error.strerror}") from error
        try:
            self._repair()
        except OSError as error:
            self.close()
            raise write_error(self.path, error) from error
        except DataError:
            self.close()
            raise

    def append(self, episode: Episode) -> None:
        """Add one episode. Raises DataError (a full disk, say) and leaves no half line behind."""
        line = dump_record(_ADAPTER, _folded(episode)) + b"\n"
        append_whole(self._file, self.path, line)

    def close(self) -> None:
        """Close the file; its lock goes with it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repair(self) -> None:
        """Cut off a last line that a killed writer tore; one that lacks only its end gets it.

        Raises DataError for a file that is not a log: nothing of it is touched.
        """
        size = os.fstat(self._file).st_size
        if size and not _RECORD.startswith(os.pread(self._file, len(_RECORD), 0)[:size]):
            raise DataError(f"{self.path} is not a log of episodes: name another file")
        end = self._last_line_end(size)
        if end < size:
            if _is_whole(os.pread(self._file, size - end, end)):
                append_whole(self._file, self.path, b"\n")
            else:
                os.ftruncate(self._file, end)

    def _last_line_end(self, size: int) -> int:
        step = 1 << 16
        end = size
        while end > 0:
            start = max(0, end - step)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0


def read_episodes(path: str | Path) -> Iterator[Episode]:
    """Yield a log's episodes in the order written; of one id that occurs twice, both.

    A last line that a killed writer tore is left out; the file may be packed (gzip, bzip2, xz).
    Raises DataError, naming the line, for anything else that is not an episode of this version, and
    for what is no ordinary file.
    """
    path = Path(path)
    with reading(str(path)), open_ordinary(path) as file:
        lines = open_unpacked(file, str(path))
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b""), 1):
            if len(line) == _LONGEST_LINE and not line.endswith(b"\n"):
                raise DataError(f"{path}, line {number} is longer than {_LONGEST_LINE:,} bytes")
            torn = not line.endswith(b"\n") and not _is_whole(line)
            if torn and (number > 1 or line.startswith(b"{")):
                return
            yield _parse(line, f"{path}, line {number}")


def _is_whole(line: bytes) -> bool:
    """True if a line without an end is a record all the same: an editor took the end away."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def dump_record(adapter: TypeAdapter[T], record: T) -> bytes:
    """A record as JSON; characters that are not text (a lone surrogate, say) become `?`."""
    try:
        return adapter.dump_json(record)
    except PydanticSerializationError:  # no UTF-8 can hold it
        data = _encodable(adapter.dump_python(record))
        return adapter.dump_json(adapter.validate_python(data))


def _encodable(value: Any) -> Any:
    """The value with what is no text in its strings replaced by `?`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def _parse(line: bytes, where: str) -> Episode:
    try:
        episode = _ADAPTER.validate_json(line)
    except ValidationError as error:
        _refuse_newer(line, where)
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        message = first["msg"].splitlines()[0]
        raise DataError(f"{where} is not an episode: {place}: {message}") from error
    _refuse_newer(line, where, episode.schema_version)
    try:
        _unfold(episode)
    except ValueError as error:
        raise DataError(f"{where} is not an episode: {error}") from error
    for trajectory in episode.trajectories:
        if wrong := _misplaced(trajectory):
            raise DataError(f"{where} is not an episode: {wrong}")
    episode.schema_version = SCHEMA_VERSION  # what an older one lacks has its default by now
    return episode


def _folded(episode: Episode) -> Episode:
    """The episode as it is stored: a leaf of a tree without what it shares with the leaf that it
    left. Where two leaves have one name, all are stored whole.
    """
    names = [leaf.branch.name for leaf in episode.trajectories if leaf.branch is not None]
    leaves = set(names)
    if len(leaves) < len(names):
        return episode
    stored = [
        leaf
        if leaf.branch is None or leaf.branch.parent not in leaves
        else replace(
            leaf,
            ledgers=[
                Ledger(leaf.ledgers[leaf.branch.ledger].tail(leaf.branch.tokens)),
                *leaf.ledgers[leaf.branch.ledger + 1 :],
            ],
            turns=leaf.own_turns,
        )
        for leaf in episode.trajectories
    ]
    return replace(episode, trajectories=stored)


def _unfold(episode: Episode) -> None:
    """Make the leaves of a tree whole again. Raises ValueError where they don't fit together."""
    leaves = [(leaf.branch, leaf) for leaf in episode.trajectories if leaf.branch is not None]
    named = {branch.name: leaf for branch, leaf in leaves}
    folded = len(named) == len(leaves)  # else two have one name, and all are whole
    parents = {branch.name: branch.parent for branch, _ in leaves}
    whole: set[str] = set()
    for name in parents:
        way: list[tuple[str, str]] = []  # up to one that is whole: each leaf, and the one it left
        while name not in whole:
            parent = parents[name]
            if parent is None or parent not in named:
                break
            if len(way) == len(parents):
                raise ValueError(f"the leaf {name!r} left itself")
            way.append((name, parent))
            name = parent
        for child, parent in reversed(way):
            if folded:
                _complete(named[child], named[parent])
            whole.add(child)


def _complete(leaf: Trajectory, parent: Trajectory) -> None:
    """Put what a leaf shares with the leaf that it left before what it has of its own."""
    branch = leaf.branch
    fits = (
        branch is not None
        and 0 <= branch.ledger < len(parent.ledgers)
        and 0 <= branch.tokens <= len(parent.ledgers[branch.ledger])
        and 0 <= branch.turns <= len(parent.turns)
        and leaf.ledgers
    )
    if branch is None or not fits:
        raise ValueError("a leaf shares more than the leaf that it left has")
    own, *later = leaf.ledgers
    ledger = parent.ledgers[branch.ledger].head(branch.tokens)
    for span in own:
        ledger.append(span)
    leaf.ledgers = [*(each.fork() for each in parent.ledgers[: branch.ledger]), ledger, *later]
    leaf.turns = [*map(as_shared, parent.turns[: branch.turns]), *leaf.turns]


def _misplaced(trajectory: Trajectory) -> str | None:
    """The error of the first turn that points to tokens that are missing or not the policy's, or
    None if there is no such turn.
    """
    masks = [ledger.response_mask for ledger in trajectory.ledgers]
    for number, turn in enumerate(trajectory.turns):
        if not 0 <= turn.ledger < len(masks):
            return f"turn {number} points to ledger {turn.ledger} of {len(masks)}"
        mask = masks[turn.ledger]
        if not 0 <= turn.start <= turn.stop <= len(mask):
            return f"turn {number} points to tokens {turn.start} to {turn.stop} of {len(mask)}"
        if (~mask[turn.start : turn.stop]).sum() != turn.given:
            return f"turn {number} points to tokens that the policy did not write"
    return None


def _refuse_newer(line: bytes, where: str, version: object = None) -> None:
    if version is None:
        try:
            version = json.loads(line)["schema_version"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DataError(
            f"{where} was written by a newer version (schema {version}; this one reads up to "
            f"{SCHEMA_VERSION}): upgrade interlace"
        )


def export_parquet(episodes: Iterable[Episode], path: str | Path) -> int:
    """Write one row per ledger and return how many; the file appears whole or not at all.

    Columns: episode, group, sample, trajectory, ledger, task, question, gold, answer, stop,
    prompt_ids, response_ids, and aligned with response_ids: response_mask, loss_weights, logprobs
    (NaN if there is none); rewards as a map. Raises MissingExtra without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    rows = [row for episode in episodes for row in _rows(episode)]
    with write_beside(path) as partial:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, _schema()), partial)
    return len(rows)


def _rows(episode: Episode) -> Iterator[dict[str, Any]]:
    for i, trajectory in enumerate(episode.trajectories):
        for j, ledger in enumerate(trajectory.ledgers):
            yield {
                "episode": episode.id,
                "group": episode.group,
                "sample": episode.sample,
                "trajectory": i,
                "ledger": j,
                "task": episode.task.id,
                "question": episode.task.question,
                "gold": episode.task.answer,
                "answer": trajectory.answer,
                "stop": trajectory.stop.value if trajectory.stop else None,
                "rewards": [(name, value) for name, value in episode.rewards.items()],
                **_token_columns(ledger),
            }


def _token_columns(ledger: Ledger) -> dict[str, Any]:
    border = ledger.prompt_length
    return {
        "prompt_ids": ledger.ids[:border],
        "response_ids": ledger.ids[border:],
        "response_mask": ledger.response_mask[border:],
        "loss_weights": ledger.loss_weights[border:],
        "logprobs": ledger.logprobs[border:],
    }


def _schema() -> Any:
    import pyarrow as pa

    text, whole, ids, floats = pa.string(), pa.int64(), pa.list_(pa.int32()), pa.list_(pa.float32())
    kinds = {
        "sample": whole,
        "trajectory": whole,
        "ledger": whole,
        "prompt_ids": ids,
        "response_ids": ids,
        "response_mask": pa.list_(pa.bool_()),
        "loss_weights": floats,
        "logprobs": floats,
        "rewards": pa.map_(text, pa.float64()),
    }
    names = "episode group sample trajectory ledger task question gold answer stop rewards"
    names += " prompt_ids response_ids response_mask loss_weights logprobs"
    return pa.schema([(name, kinds.get(name, text)) for name in names.split()])
