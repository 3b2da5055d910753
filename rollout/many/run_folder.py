"""The log and the settings of a run on disk: the same run resumes it, other runs are refused."""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from ...tools.errors import DataError, UsageError
from ...tools.files import read_object, write_whole
from ..admission import RunMetrics
from ..episode_log import EpisodeLog, read_episodes
from ..limits import EARLIER_NAMES
from ..task import Task
from ..trajectory import Episode, StopReason
from .runner import Runner

__all__ = ["UNFINISHED", "LoggedEpisode", "RunFolder", "RunObserver"]

UNFINISHED = frozenset({None, StopReason.CANCELLED, StopReason.INFRASTRUCTURE})
"""The ends of an episode that say nothing about the policy: a resumed run makes it again."""
_SETTINGS = "run.json"


class RunObserver(Protocol):
    """Hears how far a run is."""

    def loading(self) -> None:
        """The settings fit: the model is being loaded."""
        ...

    def started(self, total: int, done: "Sequence[LoggedEpisode]", metrics: RunMetrics) -> None:
        """The run begins: `total` episodes, of which the log holds `done` already."""
        ...

    def finished(self, episode: Episode) -> None:
        """One more episode is in the log."""
        ...


@dataclass(frozen=True, slots=True)
class LoggedEpisode:
    """An episode of the log, in short."""

    stop: StopReason | None
    correct: float | None

    @classmethod
    def of(cls, episode: Episode) -> "LoggedEpisode":
        """The short form of an episode."""
        return cls(episode.stop, episode.rewards.get("correct"))

    @property
    def done(self) -> bool:
        """True unless a resumed run makes it again."""
        return self.stop not in UNFINISHED


class RunFolder:
    """The episodes of a run: in a log (JSONL) as they finish, or, without one, in memory.

    The log is `episodes.jsonl` (or `name`) in the folder `path`, beside the settings in `run.json`;
    with `single_file` the log is `path` itself, and the settings are those that its episodes hold.
    Open it with `begin`, as a context manager: it then holds the log's lock.

    Settings are compared by content. Of models whose files are here, the files count, not how the
    path is written; of tasks, id, question and answer, not the order or the place of the file.

    Raises UsageError where the log holds episodes and `resume` is not asked for, and DataError for
    a `run.json` that can't be read.

    Example:
        run = RunFolder(Path("runs/a"), resume=True)
        with run.begin({"model": "nano", "n": 4, "seed": run.resolve_seed(None)}, tasks):
            await run.fill(runner, tasks)
    """

    def __init__(
        self,
        path: Path | None,
        *,
        resume: bool = False,
        single_file: bool = False,
        name: str = "episodes.jsonl",
    ) -> None:
        self.path = path
        self.log = path if single_file or path is None else path / name
        self._settings_file = None if single_file or path is None else path / _SETTINGS
        self.logged: dict[str, LoggedEpisode] = {}
        """The episodes by id; of one that was made again, the last."""
        self.new = 0
        """Episodes that this run has added."""
        self.changed_answers: list[str] = []
        """The ids of logged tasks whose answer, or data, is now another."""
        self.settings: dict[str, Any] = {}
        self._kept: dict[str, Episode] = {}
        self._open: EpisodeLog | None = None
        self._tasks: dict[str, Task] = {}
        self._before: dict[str, Any] = {}
        """The settings that the run began with, if it is resumed."""
        begun = self.log is not None and self.log.is_file() and self.log.stat().st_size > 0
        if not begun:
            return
        assert self.log is not None
        if not resume:
            what = "is not empty" if single_file else "holds a run already"
            raise UsageError(f"{path} {what}: --resume completes it, another --out leaves it alone")
        if self._settings_file is None:
            first = next(read_episodes(self.log), None)
            self._before = {} if first is None else _settings_of(first)
        else:
            self._before = _read_settings(self._settings_file)

    def resolve_seed(self, given: int | None) -> int:
        """The seed of the run: as given, else as the run began, else drawn."""
        if given is not None:
            return given
        seed = self._before.get("seed")
        return seed if isinstance(seed, int) else secrets.randbits(32)

    def refuse_other(self, settings: Mapping[str, Any]) -> None:
        """Raise UsageError, naming the first difference, if the run began with other settings.

        A setting that either side lacks is not compared: an older record, a model that is not
        loaded yet. More attempts at a task than before (`n`) only add to the log.
        """
        if self._before:
            _refuse_other(str(self.path), self._before, _plain(settings))

    def begin(
        self,
        settings: Mapping[str, Any],
        tasks: Iterable[Task],
        *,
        notes: Mapping[str, Any] | None = None,
    ) -> Self:
        """Lock the log, compare the run and each episode in it with these settings and tasks, and
        write `run.json`: the settings, and `notes`, which are not compared.

        Raises UsageError for another run's, DataError if another process writes to it or it can't
        be written.
        """
        self.settings = _plain(settings)
        self._tasks = {task.id: task for task in tasks}
        self.refuse_other(self.settings)
        if self.log is None:
            return self
        self._open = EpisodeLog(self.log)
        try:
            self._read_log(self.log)
            if self._settings_file is not None:
                known = {**self._before, **self.settings, **(notes or {})}
                text = json.dumps(known, ensure_ascii=False, indent=1)
                write_whole(self._settings_file, f"{text}\n".encode())
        except BaseException:
            self._open.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            self._open.close()

    def _read_log(self, log: Path) -> None:
        changed: dict[str, None] = {}
        read = strange = 0
        for episode in read_episodes(log):
            read += 1
            _refuse_other(str(self.path), _settings_of(episode), self.settings)
            now = self._tasks.get(episode.group)
            if now is None:
                strange += 1
            elif now.question != episode.task.question:
                raise UsageError(
                    f"the question of the task {now.id!r} is another one than {self.path} holds: "
                    "put the file of tasks back, or name another --out"
                )
            elif _judged_by(now) != _judged_by(episode.task):
                changed[now.id] = None
            self.logged[episode.id] = LoggedEpisode.of(episode)
        if strange and strange == read:
            raise UsageError(
                f"{self.path} holds episodes of other tasks: put the file of tasks back, or name "
                "another --out"
            )
        self.changed_answers = list(changed)

    @property
    def done(self) -> set[str]:
        """The ids of the episodes that need not be made again."""
        return {id for id, logged in self.logged.items() if logged.done}

    def episodes(self) -> Iterator[Episode]:
        """The episodes of the tasks of this run, with the tasks as they are now; of one that was
        made again, the last. Of a log, it is read again.
        """
        last = self._kept
        if self.log is not None:
            last = {episode.id: episode for episode in read_episodes(self.log)}
        for episode in last.values():
            if (now := self._tasks.get(episode.group)) is not None:
                episode.task = now
                yield episode

    async def fill(
        self,
        runner: Runner,
        tasks: Sequence[Task],
        *,
        observer: RunObserver | None = None,
        judge: Callable[[Episode], None] | None = None,
    ) -> None:
        """Make the episodes that are missing: `settings["n"]` of each task, seeded with
        `settings["seed"]`; `judge` is called with each, in a thread, before it is logged.

        Stopped early (cancelled), it logs what was in flight, too.
        """
        n, done = self.settings["n"], self.done
        if observer is not None:
            observer.started(len(tasks) * n, [self.logged[id] for id in done], runner.metrics)
        run = runner.run(tasks, n=n, seed=self.settings["seed"], skip=done)
        try:
            async with aclosing(run) as episodes:
                async for episode in episodes:
                    if judge is not None:
                        await asyncio.to_thread(judge, episode)
                    self._add(episode, observer)
        finally:
            for episode in runner.interrupted:
                self._add(episode, observer)

    def _add(self, episode: Episode, observer: RunObserver | None) -> None:
        episode.settings = {**self.settings, **episode.settings}
        if self._open is not None:
            self._open.append(episode)
        else:
            self._kept[episode.id] = episode
        self.logged[episode.id] = LoggedEpisode.of(episode)
        self.new += 1
        if observer is not None:
            observer.finished(episode)


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _judged_by(task: Task) -> Any:
    """All that an answer is judged by; the place of a database does not count."""
    data = {k: v for k, v in task.data.items() if k != "database" or not isinstance(v, str)}
    return _plain([task.answer, data])


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except DataError as error:
        raise DataError(
            f"{file} can't be read, and the run in it not resumed ({error}): put it back, or name "
            "another --out"
        ) from error


def _settings_of(episode: Episode) -> dict[str, Any]:
    """The settings an episode was made with; an older record keeps only the model and the format,
    in its trajectories.
    """
    settings = {"team": None, **episode.settings} if episode.settings else {}
    if not episode.trajectories:
        return settings
    made = episode.trajectory
    return {"model": made.model, "format": made.format, **settings}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    limits = {EARLIER_NAMES.get(k, k): value for k, value in settings.get("limits", {}).items()}
    return {**settings.get("sampling", {}), **limits, **settings}


def _refuse_other(log: str, then: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the first setting in which a run differs from what is asked for."""
    was, now = _flat(then), _flat(asked)
    same_files = "weights" in was and was["weights"] == now.get("weights")
    for name in sorted((was.keys() & now.keys()) - {"sampling", "limits"}):
        before, after = was[name], now[name]
        unknown = before is None and name not in ("strategy", "team")
        if before == after or unknown or (name == "n" and before < after):
            continue
        if name == "model" and same_files:  # another way to write its place
            continue
        what = f"{name} {json.dumps(before)}, not {json.dumps(after)}"
        if name == "weights":
            what = f"other files of the model {was['model']}: they have changed since"
        elif name == "team":
            what = f"{'another team' if before and after else 'a team' if before else 'no team'}"
        elif name == "files":
            changed = [file for file in after if before.get(file, after[file]) != after[file]]
            if not changed:
                continue
            what = f"another content of {', '.join(changed)}"
        elif name == "tools" and before.keys() != after.keys():
            what = f"{_as_options(before)}, not {_as_options(after)}"
        elif name == "tools":
            tool = next(tool for tool in after if before[tool] != after[tool])
            what = f"a tool {tool} of which the model was told something else"
        raise UsageError(
            f"{log} was begun with {what}: resume it with the same, or name another --out"
        )


def _as_options(tools: Mapping[str, str]) -> str:
    return " ".join(f"--tool {name}" for name in tools or ["none"])
