"""A step in numbers: what its episodes were like."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...rollout.trajectory import Episode, StopReason

__all__ = ["describe", "share_right"]


def describe(
    episodes: Sequence[Episode], unscored: Sequence[str], uninformative: int
) -> dict[str, float]:
    """Means over the episodes that have a reward, and how many have none.

    `reward/...` each part, before its weight, and `reward/total`; `stop/...` the share that ended
    so; `tokens` what the policy sampled in the whole step.
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
    for name in scored[0].rewards:
        metrics[f"reward/{name}"] = float(np.mean([episode.rewards[name] for episode in scored]))
    totals = [episode.rewards["total"] for episode in scored]
    metrics["reward/std"] = float(np.std(totals))
    metrics["response_tokens"] = float(np.mean([_tokens(episode) for episode in scored]))
    metrics["turns"] = float(
        np.mean([sum(len(t.turns) for t in episode.trajectories) for episode in scored])
    )
    stops = Counter(episode.stop for episode in scored)
    for stop in StopReason:
        if stop is not StopReason.INFRASTRUCTURE:
            metrics[f"stop/{stop.value}"] = stops[stop] / len(scored)
    return metrics


def share_right(episodes: Sequence[Episode]) -> dict[str, float]:
    """Accuracy over the episodes that have a reward, how many those are, tokens and calls each."""
    scored = [episode for episode in episodes if episode.rewards]
    metrics: dict[str, float] = {"episodes": len(scored)}
    if scored:
        metrics["accuracy"] = float(np.mean([episode.rewards["correct"] for episode in scored]))
        metrics["response_tokens"] = float(np.mean([_tokens(episode) for episode in scored]))
        metrics["calls"] = float(
            np.mean([sum(len(t.calls) for t in episode.trajectories) for episode in scored])
        )
    return metrics


def _tokens(episode: Episode) -> int:
    return sum(trajectory.sampled_tokens for trajectory in episode.trajectories)
