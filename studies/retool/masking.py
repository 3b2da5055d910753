"""The intervention on the mask: a trainer that takes tool output for the policy's own words."""

from dataclasses import replace

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.trajectory import Episode
from interlace.train.local.rl import Trainer
from interlace.train.local.update import TrainBatch

__all__ = ["Unmasked", "forget_sources"]


class Unmasked(Trainer):
    """A trainer whose loss counts what tools wrote, as one has that forgets to mask it.

    All else is as in `Trainer`: what is sampled, rewarded, and the advantages.
    """

    def _advantages(self, groups: list[list[Episode]]) -> TrainBatch | None:
        return super()._advantages([[forget_sources(each) for each in group] for group in groups])


def forget_sources(episode: Episode) -> Episode:
    """The episode as if the policy had written the tool's output, being sure of it."""
    trajectories = [
        replace(each, ledgers=[_forgotten(ledger) for ledger in each.ledgers])
        for each in episode.trajectories
    ]
    return replace(episode, trajectories=trajectories)


def _forgotten(ledger: Ledger) -> Ledger:
    """Nobody sampled those tokens: they have a log-probability of 0, which no sum reads."""
    return Ledger(
        [
            Span.policy(span.ids, logprobs=[0.0] * len(span), version=0)
            if span.source is Source.TOOL
            else span
            for span in ledger
        ]
    )
