"""A watch over a run's metrics for the collapse of interaction, which a mean reward shows late.

A policy that unlearns its tools shows it first in what it does with them: it calls less, the tags
of a call become unlikely words to it, it is sure of everything or of nothing, and the ratios of its
probabilities leave the range in which an update can be trusted. Both trainers ask `signs_of` a
step, and print what `Monitor` says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean

import numpy as np

from ..rollout.ledger import Source
from ..rollout.tokenizer import Tokenizer
from ..rollout.trajectory import Episode, Trajectory

__all__ = ["Monitor", "Signs", "mean_tag_logprob", "signs_of", "tag_logprobs", "warnings"]

WINDOW = 5
"""Steps at the beginning of a run, and at its end, that are compared."""

_NAMES = {
    "calls": ("reward/calls", "interlace/reward/calls"),
    "tags": ("tag_logprob", "interlace/tag_logprob"),
    "entropy": ("entropy", "actor/entropy"),
    "clipped": ("pg_clipfrac", "actor/pg_clipfrac"),
    "cut": (
        "rollout_is/cut",
        "rollout_corr/rollout_is_ratio_fraction_high",
        "actor/rollout_corr/rollout_rs_masked_fraction",
    ),
}
"""What each sign is called in the local trainer's metrics, and in verl's."""


@dataclass(frozen=True, slots=True)
class Signs:
    """A step in the few numbers that a collapse shows in; None where a step has none."""

    calls: float | None = None
    """Calls that could be read, an attempt."""
    tags: float | None = None
    """The mean log-probability of the tokens of tags that the policy wrote."""
    entropy: float | None = None
    """Nats a token."""
    clipped: float | None = None
    """The share of tokens whose ratio (new to old policy) lies outside the clip range."""
    cut: float | None = None
    """The share of tokens whose weight (trainer to engine) is cut off, or that are left out for
    it."""


def signs_of(metrics: Mapping[str, float]) -> Signs:
    """The signs among the metrics of a step, by the names of either trainer.

    Example:
        >>> signs_of({"reward/calls": 1.5, "entropy": 0.4}).calls
        1.5
    """
    found = {
        sign: next((float(metrics[name]) for name in names if name in metrics), None)
        for sign, names in _NAMES.items()
    }
    return Signs(**found)


def tag_logprobs(trajectory: Trajectory, tokenizer: Tokenizer, tags: Sequence[str]) -> list[float]:
    """The log-probability of each token the policy wrote that has a part in one of the `tags`."""
    found: list[float] = []
    for ledger in trajectory.ledgers:
        for span in ledger:
            if span.source is not Source.POLICY or span.logprobs is None:
                continue
            pieces = tokenizer.pieces(span.ids)
            text, ends = "".join(pieces), np.cumsum([len(piece) for piece in pieces])
            begins, part = ends - [len(piece) for piece in pieces], np.zeros(len(ends), np.bool_)
            for tag in tags:
                at = text.find(tag)
                while at >= 0:
                    part |= (begins < at + len(tag)) & (ends > at)
                    at = text.find(tag, at + len(tag))
            found += span.logprobs[part].tolist()
    return found


def mean_tag_logprob(
    episodes: Sequence[Episode], tokenizer: Tokenizer, tags: Sequence[str]
) -> dict[str, float]:
    """The metric `tag_logprob` of a step; nothing where the policy wrote no tag."""
    found = [
        value
        for episode in episodes
        for trajectory in episode.trajectories
        for value in tag_logprobs(trajectory, tokenizer, tags)
    ]
    return {"tag_logprob": fmean(found)} if found else {}


def _calls(early: float, late: float) -> str | None:
    if early < 0.2 or late > early / 2:
        return None
    return f"calls an attempt fell from {early:.2f} to {late:.2f}: the policy stops using its tools"


def _tags(early: float, late: float) -> str | None:
    if late > early - 1.0:
        return None
    return (
        f"the log-probability of a tag's token fell from {early:.2f} to {late:.2f}: the policy "
        "forgets how a call is written"
    )


def _entropy(early: float, late: float) -> str | None:
    if late < early / 5:
        return f"the entropy fell from {early:.3f} to {late:.3f}: attempts become all the same"
    if early > 0 and late > 3 * early and late > 0.5:
        return f"the entropy rose from {early:.3f} to {late:.3f}: what is said becomes noise"
    return None


def _clipped(early: float, late: float) -> str | None:
    if late < 0.2:
        return None
    return (
        f"{late:.0%} of the tokens leave the clip range: the steps are too large, so lower the "
        "learning rate or make fewer updates of a batch"
    )


def _cut(early: float, late: float) -> str | None:
    if late < 0.05:
        return None
    return (
        f"the probabilities of {late:.0%} of the tokens are too far apart: engine and trainer no "
        "longer compute the same policy"
    )


_RULES: Mapping[str, Callable[[float, float], str | None]] = {
    "calls": _calls,
    "tags": _tags,
    "entropy": _entropy,
    "clipped": _clipped,
    "cut": _cut,
}


def warnings(history: Sequence[Signs]) -> dict[str, str]:
    """Warnings by their sign, each a sentence: the mean of the last `WINDOW` steps against that of
    the first. Nothing before there are twice as many. The thresholds are rules of
    thumb of ours.

    Example:
        >>> warnings([Signs(calls=2.0)] * 5 + [Signs(calls=0.5)] * 5)["calls"]
        'calls an attempt fell from 2.00 to 0.50: the policy stops using its tools'
    """
    found = {}
    for sign in fields(Signs):
        values = [value for each in history if (value := getattr(each, sign.name)) is not None]
        if len(values) < 2 * WINDOW:
            continue
        said = _RULES[sign.name](fmean(values[:WINDOW]), fmean(values[-WINDOW:]))
        if said is not None:
            found[sign.name] = said
    return found


@dataclass(slots=True)
class Monitor:
    """The steps of one run so far."""

    _history: list[Signs] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)

    def look(self, metrics: Mapping[str, float]) -> list[str]:
        """Sentences for what this step's metrics show that the last one's did not."""
        self._history.append(signs_of(metrics))
        found = warnings(self._history)
        fresh = [said for sign, said in found.items() if sign not in self._told]
        self._told = set(found)
        return fresh
