"""The data of fine-tuning: the ledgers in logs of episodes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...rollout.episode_log import read_episodes
from ...rollout.ledger import Ledger, Source
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode
from ...tools.errors import DataError
from ..data.task_sets import split

__all__ = ["Ledgers", "read_ledgers"]

_LOOKED_AT = 8
"""Ledgers of a log whose tokens are compared with the tokenizer."""


@dataclass(slots=True)
class Ledgers:
    """Ledgers to train on, ledgers of held-out tasks, and the reasons why others were left out."""

    training: list[Ledger] = field(default_factory=list)
    held_out: list[Ledger] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    """What the policies of those that are learnt from speak."""


def read_ledgers(
    logs: Sequence[Path], tokenizer: Tokenizer, *, held_out: float, max_length: int
) -> Ledgers:
    """The ledgers of all episodes in `logs`; of an id that occurs in a log twice, the last, and of
    a ledger that occurs under one id in several logs (a log and its copy), the first.

    Whole tasks are held out, about that share of them, by a hash of their ids. Ledgers longer than
    `max_length` tokens, and those without a token to learn from, are left out. Raises DataError
    where a log can't be read, was written for another tokenizer, or nothing is left to learn from.
    """
    found, seen = Ledgers(), set[tuple[str, bytes, bytes]]()
    for log in logs:
        last = {episode.id: episode for episode in read_episodes(log)}
        _check_tokenizer(log, list(last.values()), tokenizer)
        tasks = {episode.group: Task(episode.group, "") for episode in last.values()}
        unseen = {task.id for task in split(tasks.values(), held_out)[1]}
        for episode in last.values():
            found.formats.update(each.format for each in episode.trajectories)
            for ledger in _ledgers(episode):
                content = (episode.id, ledger.ids.tobytes(), ledger.loss_weights.tobytes())
                if content in seen:
                    found.left_out["in another log"] += 1
                    continue
                seen.add(content)
                if len(ledger) > max_length:
                    found.left_out["too long"] += 1
                elif not ledger.loss_weights[1:].any():
                    found.left_out["nothing to learn"] += 1
                elif episode.group in unseen:
                    found.held_out.append(ledger)
                else:
                    found.training.append(ledger)
    if not found.training:
        why = ", ".join(f"{count} {name}" for name, count in found.left_out.items())
        names = ", ".join(map(str, logs))
        raise DataError(
            f"there is nothing to learn from in {names}: {len(found.held_out)} held out"
            + (f", {why}" if why else "")
        )
    return found


def _ledgers(episode: Episode) -> Iterator[Ledger]:
    for trajectory in episode.trajectories:
        yield from trajectory.ledgers


def _check_tokenizer(log: Path, episodes: Sequence[Episode], tokenizer: Tokenizer) -> None:
    """See that the log's prompts are what this tokenizer makes of their text.

    One that agrees is enough: a prompt may be put together of parts. Under another tokenizer the
    ids are another text, or none.
    """
    prompts = [
        span.ids
        for episode in episodes[:_LOOKED_AT]
        for ledger in _ledgers(episode)
        for span in ledger.spans[:1]
        if span.source is Source.PROMPT
    ]
    for ids in prompts:
        known = not len(ids) or int(ids.max()) < len(tokenizer)
        if known and tokenizer.encode(tokenizer.decode(ids)) == ids.tolist():
            return
    if prompts:
        models = {each.model for episode in episodes for each in episode.trajectories}
        raise DataError(
            f"{log} was written for another tokenizer than {tokenizer.path}'s (its model is "
            f"{', '.join(sorted(models))}): make it anew with that --model"
        )
