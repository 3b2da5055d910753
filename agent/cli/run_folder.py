"""A folder that holds a run: what it was made with, and its episodes as they finish."""

import json
import secrets
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

from ...rollout.episode_log import EpisodeLog, read_episodes
from ...rollout.many.runner import Runner
from ...rollout.task import Task
from ...rollout.trajectory import Episode
from ...tools.errors import DataError, UsageError
from .render.progress import Progress

__all__ = ["Record", "drawn_seed"]

_SETTINGS = "run.json"


class Record:
    """The episodes of a run, kept in `folder` (nowhere, for None); taken up again with `resume`.

    `settings` is what the episodes depend on: a run goes on only with the settings it began with.
    Raises DataError where the folder can't be written, UsageError where it holds a run already and
    `resume` is not asked for, or another run than this.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: dict[str, Any],
        *,
        resume: bool = False,
        name: str = "episodes.jsonl",
    ) -> None:

        self.folder = folder
        self.settings = json.loads(json.dumps(settings))
        self.last: dict[str, Episode] = {}
        """The episodes by id; of one that was run again, the last."""
        self.new = 0
        """Episodes that this run has added."""
        self.log = None if folder is None else folder / name
        self._file: EpisodeLog | None = None
        if self.folder is None or self.log is None:
            return
        before = read_settings(self.folder)
        begun = self.log.exists() and self.log.stat().st_size > 0
        if begun and not resume:
            raise UsageError(
                f"{self.folder} holds a run already: --resume completes it, another --out leaves "
                "it alone"
            )
        for key in sorted({*before, *self.settings} if begun else ()):
            a, b = before.get(key), self.settings.get(key)
            if key == "tasks_fingerprint":
                if a not in (None, b):
                    raise UsageError(
                        f"the tasks are no longer those that {self.folder} was begun with (their "
                        f"hash was {a} and is {b}): put the file back, or name another --out"
                    )
            elif a != b:
                raise UsageError(
                    f"{self.folder} was begun with {key} {json.dumps(a)}, not {json.dumps(b)}: "
                    "resume it with the same, or name another --out"
                )

    def __enter__(self) -> Self:
        """Open the log and read what it holds."""
        if self.folder is not None and self.log is not None:
            self._file = EpisodeLog(self.log)
            for episode in read_episodes(self.log):
                self.last[episode.id] = episode
            try:
                text = json.dumps(self.settings, ensure_ascii=False, indent=1)
                (self.folder / _SETTINGS).write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                self._file.close()
                raise DataError(f"can't write {self.folder}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def done(self) -> set[str]:
        """The ids of the episodes that need not be run again."""
        again = (None, "cancelled", "infrastructure")
        return {id for id, episode in self.last.items() if episode.stop not in again}

    async def fill(
        self, runner: Runner, tasks: Sequence[Task], n: int, seed: int, shown: Progress
    ) -> None:
        """Roll out what is missing. Stopped early, it keeps what was in flight, too."""
        done = self.done
        for id in done:
            shown.add(str(self.last[id].stop), 0)
        try:
            async with aclosing(runner.run(tasks, n=n, seed=seed, skip=done)) as episodes:
                async for episode in episodes:
                    self._add(episode, shown)
        finally:
            for episode in runner.interrupted:
                self._add(episode, shown)

    def _add(self, episode: Episode, shown: Progress) -> None:
        if self._file is not None:
            self._file.append(episode)
        self.last[episode.id] = episode
        self.new += 1
        tokens = sum(each.sampled_tokens for each in episode.trajectories)
        shown.add(str(episode.stop or "cancelled"), tokens)


def read_settings(folder: Path) -> dict[str, Any]:
    """Settings a run in `folder` began with, or {} if none is there."""
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def drawn_seed(given: int | None, folder: Path | None) -> int:
    """The seed of a run: as given, as the run in `folder` began, else drawn."""
    if given is not None:
        return given
    before = {} if folder is None else read_settings(folder)
    seed = before.get("seed")
    return seed if isinstance(seed, int) else secrets.randbits(32)
