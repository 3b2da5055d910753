"""`interlace show`: episodes of a log, each token coloured by who wrote it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..exits import guarded, print_json

if TYPE_CHECKING:
    from ....rollout.tokenizer import Tokenizer
    from ....rollout.trajectory import Episode

from ..options import command

__all__ = ["show"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which episodes."""

    episode: Annotated[str | None, typer.Option(help="Only the episode of this id.")] = None
    index: Annotated[
        int | None, typer.Option(help="Only the episode at this place: 0 first, -1 last.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many.")] = None


@command
def show(
    file: Annotated[Path, typer.Argument(help="A log that rollout or chat wrote.")],
    selection: Selection,
    ids: Annotated[
        bool, typer.Option("--ids", help="Each token with its id, log-probability and weight.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="One line for each group.")] = False,
    m500: Annotated[
        Path | None,
        typer.Option(help="Write the episodes of a team to this file, in the shape of M500."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The folder of the tokenizer, where it is not found.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Print the episodes of a log: who wrote each token, what is trained, rewards and timings."""
    with guarded(json=json, debug=debug):
        from ..render.episodes import print_episode, print_stats, summary
        from ..render.pager import paged

        episodes = _select(file, selection)
        if json:
            print_json({"episodes": [summary(episode) for episode in episodes], "error": None})
            return
        tokenizers = _Tokenizers(tokenizer)
        if m500 is not None:
            _write_m500(episodes, m500, tokenizers)
            return
        first = next(episodes)  # a file that can't be read is told before the pager opens
        with paged() as console:
            if stats:
                print_stats(console, _chain(first, episodes))
                return
            for episode in _chain(first, episodes):
                print_episode(console, episode, tokenizers.of(episode), ids=ids)


def _write_m500(episodes: "Iterator[Episode]", path: Path, tokenizers: "_Tokenizers") -> None:
    from ....tools.errors import UsageError
    from ....train.coldstart.m500 import write_m500
    from ..exits import tell

    first = next(episodes)
    tokenizer = tokenizers.of(first)
    if tokenizer is None:
        raise UsageError("to write texts, name the folder of the model's tokenizer: --tokenizer")
    if path.exists():
        raise UsageError(f"{path} is there already: name another file")
    count = write_m500(_chain(first, episodes), path, tokenizer)
    tell(f"{count} episodes in {path}")


def _chain(first: "Episode", rest: "Iterator[Episode]") -> "Iterator[Episode]":
    yield first
    yield from rest


def _select(file: Path, selection: Selection) -> "Iterator[Episode]":
    """The episodes asked for; raises DataError where there is none."""
    from ....rollout.episode_log import read_episodes
    from ....tools.errors import DataError

    episodes = read_episodes(file)
    if selection.episode is not None:
        episodes = (episode for episode in episodes if episode.id == selection.episode)
    if selection.index is not None:
        episodes = _at(episodes, selection.index)
    if selection.limit is not None:
        episodes = islice(episodes, selection.limit)
    first = next(episodes, None)
    if first is None:
        raise DataError(f"{file} has no such episode" if _asked(selection) else f"{file} is empty")
    return _chain(first, episodes)


def _asked(selection: Selection) -> bool:
    return selection.episode is not None or selection.index is not None


def _at(episodes: "Iterator[Episode]", index: int) -> "Iterator[Episode]":
    if index >= 0:
        return islice(episodes, index, index + 1)
    from collections import deque

    last = deque(episodes, maxlen=-index)
    return iter([last[0]] if len(last) == -index else [])


class _Tokenizers:
    """The tokenizers that the records' models had, as far as they are on this machine."""

    def __init__(self, given: Path | None) -> None:
        from ....rollout.tokenizer import Tokenizer

        self._given = None if given is None else Tokenizer.load(given)
        self._found: dict[str, Any] = {}

    def of(self, episode: "Episode") -> "Tokenizer | None":
        """The tokenizer to read this episode with; says on stderr, once, where there is none."""
        if self._given is not None or not episode.trajectories:
            return self._given
        name = episode.trajectories[-1].model
        if name not in self._found:
            self._found[name] = self._find(name)
        found: Tokenizer | None = self._found[name]
        return found

    def _find(self, name: str) -> "Tokenizer | None":
        from ....rollout.models.files import local_model
        from ....rollout.tokenizer import Tokenizer
        from ....tools.errors import ModelError
        from ..exits import tell

        try:
            folder = local_model(name)
            if folder is not None:
                return Tokenizer.load(folder)
        except ModelError:
            pass  # the sentence below says what to do
        tell(f"no tokenizer of {name} is here: ids are shown (--tokenizer names its folder)")
        return None
