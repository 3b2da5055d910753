"""An engine that draws each token with the same probability: how far chance gets."""

import math
from collections.abc import AsyncGenerator

import numpy as np

from interlace.rollout.engines import Chunk, Request, StopFinder
from interlace.rollout.models.files import find_model
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import FinishReason

__all__ = ["Dice"]


class Dice:
    """Draws from the vocabulary of a model, of which it needs the tokenizer alone."""

    def __init__(self, model: str = "nano", *, context: int = 4096) -> None:
        """`model` is a name as for --model: nano, a folder, a Hugging Face id."""
        self.name = "dice"
        self.tokenizer = Tokenizer.load(find_model(model))
        self.context_length = context

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Draw tokens until a stop string, the end, or the limit."""
        rng = np.random.default_rng(request.sampling.seed)
        stops = StopFinder(self.tokenizer, request.stop)
        logprob = -math.log(len(self.tokenizer))
        for left in reversed(range(request.max_tokens)):
            token = int(rng.integers(len(self.tokenizer)))
            finish = None if left else FinishReason.LENGTH
            if token in self.tokenizer.eos_ids:
                finish = FinishReason.EOS
            elif stops.push(token):
                finish = FinishReason.STOP
            yield Chunk((token,), (logprob,), finish=finish)
            if finish is not None:
                return

    async def release(self, context: str) -> None:
        """Forget a trajectory; nothing is kept."""

    async def aclose(self) -> None:
        """Free everything; nothing is held."""
