"""Rejection sampling: of a model's own attempts, the right ones, each once, a few for each task."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ...rollout.ledger import Ledger
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode, StopReason, Trajectory, Turn
from ..evaluation.attempts import settle
from ..rewards import Checker
from .checks import Checked
from .traces import Dropped

__all__ = ["select"]


def select(
    episodes: Iterable[Episode],
    checker: Checker,
    tokenizer: Tokenizer,
    *,
    cap: int = 4,
    needs_call: bool = False,
    max_tokens: int = 4096,
) -> Checked:
    """The attempts to learn from, in the order of tasks and samples, and why others are dropped.

    Kept is what answered, and rightly, and did not write tool output itself; with `needs_call`,
    only what made a call. Attempts at a task that differ in blanks and case alone are one. A turn
    whose calls all failed gets loss weight 0: what put it right is learnt, the mistake is not.
    """
    checked = Checked()
    per_task: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    order: dict[str, None] = {}
    last = {episode.id: episode for episode in episodes}
    for episode in last.values():
        order.setdefault(episode.group)
    place = {group: number for number, group in enumerate(order)}
    for episode in sorted(last.values(), key=lambda each: (place[each.group], each.sample)):
        why = _fault(episode, checker, needs_call, max_tokens)
        if why is None:
            key = (episode.group, _said(episode, tokenizer))
            if key in seen:
                why = Dropped.DUPLICATE
            elif per_task[episode.group] >= cap:
                why = Dropped.CAP
        if why is not None:
            checked.dropped[why] += 1
            continue
        seen.add(key)
        per_task[episode.group] += 1
        shown = [_without_mistakes(each) for each in episode.trajectories]
        checked.kept.append(replace(episode, trajectories=shown))
    return checked


def _fault(episode: Episode, checker: Checker, needs_call: bool, max_tokens: int) -> Dropped | None:
    if settle(episode, checker) is not None:
        return Dropped.UNJUDGED
    turns = [turn for each in episode.trajectories for turn in each.turns]
    if any(turn.forged for turn in turns):
        return Dropped.FORGED
    if episode.stop is not StopReason.ANSWERED:
        return Dropped.NO_ANSWER
    if not episode.rewards["correct"]:
        return Dropped.WRONG_ANSWER
    if needs_call and not any(turn.calls for turn in turns):
        return Dropped.NO_CALL
    longest = max(len(ledger) for each in episode.trajectories for ledger in each.ledgers)
    return Dropped.TOO_LONG if longest > max_tokens else None


def _said(episode: Episode, tokenizer: Tokenizer) -> str:
    texts = [each.text(turn, tokenizer) for each in episode.trajectories for turn in each.turns]
    return " ".join("\n".join(texts).split()).casefold()


def _without_mistakes(trajectory: Trajectory) -> Trajectory:
    """The trajectory with loss weight 0 on the turns whose calls all failed."""
    bad = [turn for turn in trajectory.turns if turn.calls and all(c.error for c in turn.calls)]
    if not bad:
        return trajectory
    ledgers = []
    for number, ledger in enumerate(trajectory.ledgers):
        ledgers.append(_silenced(ledger, [turn for turn in bad if turn.ledger == number]))
    return replace(trajectory, ledgers=ledgers)


def _silenced(ledger: Ledger, turns: list[Turn]) -> Ledger:
    shown = Ledger()
    position = 0
    for span in ledger:
        inside = any(turn.start <= position < turn.stop for turn in turns)
        shown.append(replace(span, weight=0.0) if inside else span)
        position += len(span)
    return shown
