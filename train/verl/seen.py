"""A step of verl's in numbers that verl does not log: what its episodes did.

Names follow the local trainer's (`train/local/metrics.py`), below `interlace/`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...rollout.trajectory import StopReason

__all__ = ["describe_rows"]


def describe_rows(keys: Sequence[str], extra: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the episodes of a batch.

    `keys` are verl's names of the rows, `UID_SESSION_INDEX`, of one episode in as many rows as a
    team made calls; `extra` is each row's `extra_fields`. `interlace/reward/...` is each part
    before its weight, and the signals not in the reward: `correct`, `calls`, `tool_errors`,
    `void_turns`, `forged`; `interlace/stop/...` the share with each stop reason. For trees,
    `interlace/tokens_computed_again` is the share of the rows' tokens that a leaf has from another.
    """
    episodes: dict[str, list[Mapping[str, Any]]] = {}
    for key, fields in zip(keys, extra, strict=True):
        episodes.setdefault(key.rpartition("_")[0], []).append(fields)
    if not episodes:
        return {"interlace/episodes": 0}
    last = [rows[-1] for rows in episodes.values()]
    described = [[row["interlace"] for row in rows] for rows in episodes.values()]
    turns = [[turn for row in rows for turn in row["turns"]] for rows in described]
    tokens = sum(row["tokens"] for rows in described for row in rows)
    shared = sum(row["shared"] for rows in described for row in rows)
    tools = [tool for rows in described for row in rows for tool in row["tools"].values()]
    metrics: dict[str, float] = {
        "episodes": len(episodes),
        "turns": _mean([len(each) for each in turns]),
        "response_tokens": _mean([sum(turn["tokens"] for turn in each) for each in turns]),
        "turn_tokens": _mean([turn["tokens"] for each in turns for turn in each]),
        "turn_tokens_max": float(max(turn["tokens"] for each in turns for turn in each)),
        "timeouts": sum(tool["timeouts"] for tool in tools) / len(episodes),
        "tool_seconds": sum(tool["seconds"] for tool in tools) / len(episodes),
    }
    if shared:  # of trees
        metrics["tokens_computed_again"] = shared / tokens
    for name, value in last[0]["reward_extra_info"].items():
        if name != "acc" and not isinstance(value, str):  # `acc` is `correct` by verl's name
            values = [row["reward_extra_info"][name] for row in last]
            metrics[f"reward/{name}"] = _mean(values)
    stops = Counter(rows[-1]["stop"] for rows in described)
    for stop in StopReason:
        if stop is not StopReason.INFRASTRUCTURE:
            metrics[f"stop/{stop.value}"] = stops[stop.value] / len(episodes)
    tags = [row["tags"] for rows in described for row in rows]
    if any(each["tokens"] for each in tags):
        total = sum(each["logprob"] for each in tags)
        metrics["tag_logprob"] = total / sum(each["tokens"] for each in tags)
    return {f"interlace/{name}": float(value) for name, value in metrics.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
