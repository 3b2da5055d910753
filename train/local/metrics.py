"""A step in numbers: what its episodes were like."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...rollout.trajectory import Episode, StopReason
from ...tools import ErrorKind
from ..rewards.shaping import is_void

__all__ = ["describe", "share_right"]


def describe(
    episodes: Sequence[Episode], unscored: Sequence[str], uninformative: int
) -> dict[str, float]:
    """Means over the episodes that have a reward, and how many have none.

    `reward/...` each part, before its weight, and `reward/total`; `stop/...` the share that ended
    so; `tokens` what the policy sampled in the whole step; `use/...` how tools were used, whatever
    the reward is made of.
    """
    scored = [episode for episode in episodes if episode.rewards]
    metrics: dict[str, float] = {
        "episodes": len(episodes),
        "unscored": len(unscored),
        "uninformative_groups": uninformative,
        "tokens": float(sum(map(_tokens, episodes))),
    }
    if not scored:
        return metrics
    metrics |= _of_tools(scored)
    for name in scored[0].rewards:
        metrics[f"reward/{name}"] = float(np.mean([episode.rewards[name] for episode in scored]))
    totals = [episode.rewards["total"] for episode in scored]
    metrics["reward/std"] = float(np.std(totals))
    metrics["response_tokens"] = float(np.mean([_tokens(episode) for episode in scored]))
    metrics["turns"] = float(
        np.mean([sum(len(t.own_turns) for t in episode.trajectories) for episode in scored])
    )
    stops = Counter(episode.stop for episode in scored)
    for stop in StopReason:
        if stop is not StopReason.INFRASTRUCTURE:
            metrics[f"stop/{stop.value}"] = stops[stop] / len(scored)
    return metrics


def _of_tools(episodes: Sequence[Episode]) -> dict[str, float]:
    """How tools were used in episodes, of which collapse shows first: the calls of an attempt and
    the share of attempts with one, the share of calls that failed, void turns and forged output of
    an attempt, tokens of a turn, and the mean log-probability, under the policy that sampled, of
    the tokens of turns with a call and of those without (nats; the former falls where a policy
    loses its grip on the tags).
    """
    turns = [(t, turn) for each in episodes for t in each.trajectories for turn in t.own_turns]
    run = [
        call for _, turn in turns for call in turn.calls if call.error is not ErrorKind.UNAVAILABLE
    ]
    lengths = [turn.stop - turn.start for _, turn in turns]
    count = len(episodes)
    found = {
        "use/calls": len(run) / count,
        "use/with_a_call": sum(any(t.calls for t in e.trajectories) for e in episodes) / count,
        "use/failed": sum(call.error is not None for call in run) / max(1, len(run)),
        "use/void_turns": sum(is_void(t, turn) for t, turn in turns) / count,
        "use/forged": sum(turn.forged for _, turn in turns) / count,
        "use/turn_tokens": float(np.mean(lengths or [0])),
        "use/turn_tokens/max": max(lengths, default=0),
    }
    for name, wanted in (("call", True), ("other", False)):
        sampled = [
            t.ledgers[turn.ledger].logprobs[turn.start : turn.stop]
            for t, turn in turns
            if bool(turn.calls) is wanted
        ]
        values = np.concatenate(sampled) if sampled else np.empty(0)
        if len(values) and np.isfinite(values).all():
            found[f"use/{name}_logprob"] = float(values.mean())
    return found


def share_right(episodes: Sequence[Episode]) -> dict[str, float]:
    """Accuracy over the episodes that have a reward, how many those are and how many have none,
    tokens and calls each.
    """
    scored = [episode for episode in episodes if episode.rewards]
    metrics: dict[str, float] = {
        "episodes": len(scored),
        "unscored": len(episodes) - len(scored),
    }
    if scored:
        metrics["accuracy"] = float(np.mean([episode.rewards["correct"] for episode in scored]))
        metrics["response_tokens"] = float(np.mean([_tokens(episode) for episode in scored]))
        metrics["calls"] = float(
            np.mean([sum(len(t.calls) for t in episode.trajectories) for episode in scored])
        )
    return metrics


def _tokens(episode: Episode) -> int:
    return sum(trajectory.sampled_tokens for trajectory in episode.trajectories)
