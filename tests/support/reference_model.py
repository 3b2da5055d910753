"""What a plain forward pass says of a finished ledger."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from interlace.rollout.engines import Sampling
from interlace.rollout.ledger import Ledger, Source
from support.engine_helpers import log_softmax, plain_logits, truncated


def assert_forward(models: Mapping[int, Any], ledger: Ledger, sampling: Sampling) -> int:
    """Every policy token has the log-probability that the weights of its version give it, to 1e-3;
    returns how many there are.
    """
    logits = {version: plain_logits(model, ledger.ids) for version, model in models.items()}
    at = checked = 0
    for span in ledger:
        if span.source is Source.POLICY:
            assert span.version is not None and span.logprobs is not None
            before = logits[span.version][at - 1 : at - 1 + len(span)]
            picked = np.arange(len(span)), span.ids
            if sampling.temperature == 0:
                assert span.raw_logprobs is not None
                assert np.abs(span.raw_logprobs - log_softmax(before)[picked]).max() <= 1e-3
                assert (before[picked] >= before.max(-1) - 1e-3).all()
                assert not span.logprobs.any()
            else:
                drawn_from = np.stack([truncated(one, sampling) for one in before])
                assert np.abs(span.logprobs - drawn_from[picked]).max() <= 1e-3
            checked += len(span)
        at += len(span)
    return checked
