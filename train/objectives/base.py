"""Parts of an objective: an advantage estimator, a policy loss, and how losses are summed.

Signatures match verl 0.9.1, so that the same functions serve the local trainer and verl.
Shapes: B responses, T tokens; rewards, masks, log-probabilities and advantages are (B, T).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from ...tools.errors import UsageError
from .aggregate import agg_loss
from .groups import Groups
from .masked import LOG_RATIO_LIMIT, log_ratios, masked, masked_mean

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ActorConfig",
    "AdvantageConfig",
    "AdvantageEstimator",
    "Advantages",
    "ClipRange",
    "Loss",
    "LossConfig",
    "LossFormula",
    "Objective",
    "PolicyLoss",
    "TokenLosses",
    "clip_range",
    "verl_loss",
]

Loss: TypeAlias = "tuple[Tensor, dict[str, float]]"
"""A scalar with a gradient, and what to log."""
Advantages: TypeAlias = "tuple[Tensor, Tensor]"
"""(advantages, returns), both (B, T), 0 where the mask is 0, without a gradient."""


class ActorConfig(Protocol):
    """The settings that a policy loss reads: `LossConfig`, or verl's ActorConfig."""

    @property
    def clip_ratio(self) -> float: ...  # noqa: D102
    @property
    def clip_ratio_low(self) -> float | None: ...  # noqa: D102
    @property
    def clip_ratio_high(self) -> float | None: ...  # noqa: D102
    @property
    def clip_ratio_c(self) -> float | None: ...  # noqa: D102
    @property
    def global_batch_info(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The numbers of a policy loss; the names are verl's.

    Example:
        >>> clip_range(LossConfig(clip_ratio=0.2, clip_ratio_high=0.28))
        (0.8, 1.28)
    """

    clip_ratio: float = 0.2
    """How far the ratio of probabilities may leave 1, on either side."""
    clip_ratio_low: float | None = None
    """The same downwards, where it differs; 1 or more means no lower bound."""
    clip_ratio_high: float | None = None
    """The same upwards, where it differs."""
    clip_ratio_c: float | None = None
    """Dual clip: where A < 0 the ratio counts up to this and no further. None: no such bound.
    verl always has one (3; its ReTool recipe 10)."""
    global_batch_info: Mapping[str, Any] = field(default_factory=dict)
    """What `agg_loss` must know of the whole batch when this is a part of it."""

    def __post_init__(self) -> None:
        """Refuse bounds that no ratio could keep."""
        low, high = clip_range(self)
        if not low < 1 < high:
            raise UsageError(f"clip ratios must be above 0: {self!r}")
        if self.clip_ratio_c is not None and self.clip_ratio_c <= 1:
            raise UsageError(f"clip_ratio_c must be above 1: {self!r}")


class PolicyLoss(Protocol):
    """From log-probabilities and advantages to a loss to be minimised."""

    def __call__(
        self,
        old_log_prob: "Tensor",
        log_prob: "Tensor",
        advantages: "Tensor",
        response_mask: "Tensor",
        loss_agg_mode: str = ...,
        config: ActorConfig | None = None,
        rollout_is_weights: "Tensor | None" = None,
    ) -> Loss:
        """The loss, a scalar, and what to log.

        `log_prob` is of the policy in training, with a gradient; `old_log_prob` of the policy that
        began this batch, both of the sampled tokens and at the temperature they were sampled at.
        Without a `config` the method's own numbers hold. `rollout_is_weights` (B, T) multiply each
        token's loss: see `mismatch.py`.
        """
        ...


class AdvantageConfig(Protocol):
    """An estimator's view of verl's AlgoConfig."""

    @property
    def gamma(self) -> float: ...  # noqa: D102


class AdvantageEstimator(Protocol):
    """From rewards to how much better than expected each token did."""

    def __call__(
        self,
        token_level_rewards: "Tensor",
        response_mask: "Tensor",
        index: Groups,
        *,
        config: AdvantageConfig | None = None,
        **kwargs: Any,
    ) -> Advantages:
        """(advantages, returns). `index` says which group each response belongs to."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """A published method: which parts it is made of, with its own numbers.

    A KL penalty and the correction for the engine's log-probabilities go with any of them.
    """

    name: str
    summary: str
    """One line for a list."""
    paper: str
    """The arXiv id."""
    advantage: AdvantageEstimator
    loss: PolicyLoss
    loss_agg_mode: str
    config: LossConfig
    dynamic_sampling: bool = False
    """Whether groups with equal rewards are dropped and sampled anew (`dapo.informative`)."""


def clip_range(config: ActorConfig) -> tuple[float, float]:
    """The lowest and the highest ratio that the configuration leaves unclipped."""
    low, high = config.clip_ratio_low, config.clip_ratio_high
    return (
        1 - (config.clip_ratio if low is None else low),
        1 + (config.clip_ratio if high is None else high),
    )


class ClipRange(NamedTuple):
    """The bounds of a clip, as ratios of probabilities: `LossConfig` says what the numbers mean."""

    low: float
    high: float
    dual: float | None
    """`clip_ratio_c`."""


class TokenLosses(NamedTuple):
    """The loss of each token, and where it was clipped, all (B, T): a formula's result."""

    losses: "Tensor"
    clipped: "Tensor | None" = None
    bounded: "Tensor | None" = None
    """Where dual clip took hold."""


class LossFormula(Protocol):
    """A policy loss as papers write it: one value per token. Its inputs are 0 where the mask is."""

    @property
    def __name__(self) -> str: ...

    def __call__(
        self,
        log_ratio: "Tensor",
        advantages: "Tensor",
        log_prob: "Tensor",
        mask: "Tensor",
        bounds: ClipRange,
        /,
    ) -> TokenLosses:
        """`log_ratio` is log_prob - old_log_prob; it and `log_prob` have a gradient. `mask` is for
        what is summed over a response (GSPO's ratio).
        """
        ...


def verl_loss(mode: str, default: LossConfig) -> Callable[[LossFormula], PolicyLoss]:
    """Put verl's signature round a formula, with its own aggregation and numbers as defaults.

    What all losses share is done here: values at mask 0 are replaced before anything is computed
    from them, importance weights multiply each token's loss, `agg_loss` sums up, and the metrics
    are verl's: the shares of tokens that were clipped either way, and the k1 estimate of the KL
    divergence from the old policy.
    """

    def put_round(formula: LossFormula) -> PolicyLoss:
        @wraps(formula)
        def loss(
            old_log_prob: "Tensor",
            log_prob: "Tensor",
            advantages: "Tensor",
            response_mask: "Tensor",
            loss_agg_mode: str = mode,
            config: ActorConfig | None = None,
            rollout_is_weights: "Tensor | None" = None,
        ) -> Loss:
            config = default if config is None else config
            log_ratio = log_ratios(log_prob, old_log_prob, response_mask)
            losses, clipped, bounded = formula(
                log_ratio,
                masked(advantages, response_mask),
                masked(log_prob, response_mask),
                response_mask,
                ClipRange(*clip_range(config), config.clip_ratio_c),
            )
            if rollout_is_weights is not None:
                losses = losses * masked(rollout_is_weights.detach(), response_mask)
            total = agg_loss(losses, response_mask, loss_agg_mode, **config.global_batch_info)
            kl = -log_ratio.detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
            return total, {
                "actor/pg_clipfrac": _share(clipped, response_mask),
                "actor/pg_clipfrac_lower": _share(bounded, response_mask),
                "actor/ppo_kl": masked_mean(kl, response_mask).item(),
            }

        del loss.__wrapped__  # `help` and verl are to see this signature, not the formula's
        return loss

    return put_round


def _share(tokens: "Tensor | None", mask: "Tensor") -> float:
    return 0.0 if tokens is None else masked_mean(tokens, mask).item()
