"""`interlace show`: episodes of a log, each token coloured by who wrote it."""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ....rollout.episode_log import read_episodes
from ....rollout.models.files import local_model
from ....rollout.tokenizer import Tokenizer
from ....rollout.trajectory import Episode
from ....tools.errors import DataError, ModelError, UsageError
from ....train.coldstart.m500 import write_m500
from ..commands.show import EpisodeSelection
from ..exits import eprint, print_json
from ..options import ReportOptions
from ..render.episodes import print_episode, print_stats, summary
from ..render.pager import paged

__all__ = ["show"]


def show(
    file: Path,
    selection: EpisodeSelection,
    ids: bool,
    stats: bool,
    m500: Path | None,
    tokenizer: Path | None,
    output: ReportOptions,
) -> None:
    """Print the episodes that were selected, or write them in the layout of M500."""
    episodes = _select(file, selection)
    if output.json:
        print_json({"episodes": [summary(episode) for episode in episodes], "error": None})
        return
    tokenizers = _Tokenizers(tokenizer)
    if m500 is not None:
        _write_m500(episodes, m500, tokenizers)
        return
    first = next(episodes)  # a file that can't be read is reported before the pager opens
    with paged() as console:
        if stats:
            print_stats(console, chain([first], episodes))
            return
        for episode in chain([first], episodes):
            print_episode(console, episode, tokenizers.of(episode), ids=ids)


def _write_m500(episodes: Iterator[Episode], path: Path, tokenizers: "_Tokenizers") -> None:
    first = next(episodes)
    tokenizer = tokenizers.of(first)
    if tokenizer is None:
        raise UsageError("to write texts, name the folder of the model's tokenizer: --tokenizer")
    if path.exists():
        raise UsageError(f"{path} is there already: name another file")
    count = write_m500(chain([first], episodes), path, tokenizer)
    eprint(f"{count} episodes in {path}")


def _select(file: Path, selection: EpisodeSelection) -> Iterator[Episode]:
    """The episodes asked for; raises DataError if there is none."""
    episodes = read_episodes(file)
    if selection.episode is not None:
        episodes = (episode for episode in episodes if episode.id == selection.episode)
    if selection.index is not None:
        episodes = _at(episodes, selection.index)
    if selection.limit is not None:
        episodes = islice(episodes, selection.limit)
    first = next(episodes, None)
    if first is None:
        asked = selection.episode is not None or selection.index is not None
        raise DataError(f"{file} has no such episode" if asked else f"{file} is empty")
    return chain([first], episodes)


def _at(episodes: Iterator[Episode], index: int) -> Iterator[Episode]:
    if index >= 0:
        return islice(episodes, index, index + 1)

    last = deque(episodes, maxlen=-index)
    return iter([last[0]] if len(last) == -index else [])


class _Tokenizers:
    """The tokenizers that the records' models had, as far as they are on this machine."""

    def __init__(self, given: Path | None) -> None:
        self._given = None if given is None else Tokenizer.load(given)
        self._found: dict[str, Any] = {}

    def of(self, episode: Episode) -> Tokenizer | None:
        """The tokenizer to read this episode with; prints on stderr, once, if there is none."""
        if self._given is not None or not episode.trajectories:
            return self._given
        name = episode.trajectories[-1].model
        if name not in self._found:
            self._found[name] = self._find(name)
        found: Tokenizer | None = self._found[name]
        return found

    def _find(self, name: str) -> Tokenizer | None:
        try:
            folder = local_model(name)
            if folder is not None:
                return Tokenizer.load(folder)
        except ModelError:
            pass  # the sentence below says what to do
        eprint(f"no tokenizer of {name} is here: ids are shown (--tokenizer names its folder)")
        return None
