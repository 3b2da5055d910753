"""Drawing the next token of every running request at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..base import Sampling

__all__ = ["SampledDraw", "TokenSampler"]

# The largest float32 below 1 that stays below 1 after a product is rounded: with it the inverse of
# the cumulative distribution is always defined.
_BELOW_ONE = 1 - 2**-22


@dataclass(frozen=True, slots=True)
class SampledDraw:
    """Tokens drawn, int64 (rows,), and their log-probabilities, float32 (rows,).

    `logprobs` are under the distribution they were drawn from, `raw` at temperature 1 untruncated.
    """

    tokens: Tensor
    logprobs: Tensor
    raw: Tensor


class TokenSampler:
    """The sampling parameters of a set of rows, as tensors.

    Of the distribution at the row's temperature the `top_k` most likely tokens stay, and of these,
    renormalised, the fewest whose probability reaches `top_p`; ties go to the smaller id. A token
    is drawn by inverting the cumulative distribution at a uniform number that belongs to the row,
    so a row's tokens do not depend on the others.
    """

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        self._device = device
        greedy = [s.temperature == 0 for s in samplings]
        self._all_greedy = all(greedy)
        self._greedy = torch.tensor(greedy, device=device) if any(greedy) else None
        self._temperature: Tensor | None = None
        if any(s.temperature not in (0, 1) for s in samplings):
            self._temperature = column([max(s.temperature, 1e-6) for s in samplings])
        cut = [
            at
            for at, s in enumerate(samplings)
            if s.temperature > 0 and (s.top_k > 0 or s.top_p < 1)
        ]
        self._cut = torch.tensor(cut, device=device) if cut else None
        self._top_k = column([float(samplings[at].top_k or 2**31) for at in cut])
        # 2, not 1: a cumulative sum may be rounded above 1, and must not cut where nothing is cut.
        self._top_p = column([p if (p := samplings[at].top_p) < 1 else 2.0 for at in cut])

    def draw(self, logits: Tensor, uniforms: Sequence[float]) -> SampledDraw:
        """Draw a token a row from logits (rows, vocabulary), with one number in [0, 1) a row."""
        logits = logits.float()
        raw = logits.log_softmax(-1)
        if self._all_greedy:
            tokens = logits.argmax(-1)
            return SampledDraw(tokens, torch.zeros_like(raw[:, 0]), _pick(raw, tokens))
        logprobs = raw
        if self._temperature is not None:
            # Measured from the maximum, so that a tiny temperature can't overflow.
            top = logits.amax(-1, keepdim=True)
            logprobs = ((logits - top) / self._temperature).log_softmax(-1)
        if self._cut is not None:
            logprobs = logprobs.clone()
            logprobs[self._cut] = _truncate(logprobs[self._cut], self._top_k, self._top_p)
        cumulative = logprobs.exp().cumsum(-1)
        at = torch.tensor(uniforms, dtype=torch.float32, device=self._device)[:, None]
        at = at.clamp(max=_BELOW_ONE) * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, at, right=True)[:, 0]
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
        chosen = _pick(logprobs, tokens)
        if (
            self._cut is not None
        ):  # a parallel sum may step back by one rounding: never leave the set
            tokens = torch.where(chosen.isneginf(), logprobs.argmax(-1), tokens)
            chosen = _pick(logprobs, tokens)
        if self._greedy is not None:
            tokens = torch.where(self._greedy, logits.argmax(-1), tokens)
            chosen = chosen.masked_fill(self._greedy, 0.0)
        return SampledDraw(tokens, chosen, _pick(raw, tokens))


def _pick(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(-1, tokens[:, None])[:, 0]


def _truncate(logprobs: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Log-probabilities (rows, vocabulary) renormalised over the kept tokens, -inf elsewhere."""
    ordered, order = logprobs.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ordered.shape[-1], device=ordered.device)
    ordered = ordered.masked_fill(rank >= top_k, -torch.inf)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    kept = ordered.masked_fill(before >= top_p, -torch.inf).log_softmax(-1)
    return torch.empty_like(logprobs).scatter_(-1, order, kept)
