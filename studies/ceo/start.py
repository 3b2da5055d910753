"""The start: a fresh policy of a hundred thousand parameters learns to write decisions, fair ones.

Its demonstrations are the best of three decisions drawn at random: a teacher that knows the form
and looks at the situation, and falls short of the best fixed allocation. What is best is left to
reinforcement learning.
"""

import random
from pathlib import Path
from typing import TYPE_CHECKING

from interlace.rollout.formats import Encoder
from interlace.rollout.formats.plain import PlainText
from interlace.rollout.ledger import Ledger, Span
from interlace.rollout.team.replies import CeoDecision, write_decision
from interlace.rollout.tokenizer import Tokenizer
from interlace.train.local.checkpoint import save_weights
from interlace.train.local.sft import SFTConfig, sft

from ..nano.recipe import Recipe, new_model
from ..nano.tokenizer import build_tokenizer
from .environment import ACTIONS, Action, Situation, situations

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["demonstrations", "make_start", "written"]

VOCABULARY = 320
_RECIPE = Recipe(
    vocabulary=VOCABULARY, width=64, layers=2, heads=2, key_value_heads=2, hidden=128, context=256
)
_COUNT = 4096


def written(action: Action) -> str:
    """A decision in a CEO's words.

    Example:
        >>> print(written(Action(3, 512)))
        ### Decision: continue
        ### Recruit Number: 3
        ### Direction: none
        ### Maximum Tokens: 512
    """
    return write_decision(CeoDecision(not action.stops, action.experts, "", action.tokens))


def demonstrations(count: int, seed: int) -> list[tuple[Situation, Action]]:
    """Situations of the training split, each with the best of three decisions drawn at random."""
    rng = random.Random(f"ceo demonstrations {seed}")
    shown = rng.choices(situations("train"), k=count)
    return [(each, max(rng.sample(ACTIONS, 3), key=each.reward)) for each in shown]


def make_start(folder: Path, seed: int, steps: int) -> Path:
    """Fine-tune a fresh policy; the folder of its checkpoint, ready to be loaded."""
    start = folder / "start"
    shown = demonstrations(_COUNT, seed)
    texts = [f"user\nassistant\n{situation.question}\n{written(a)}\n" for situation, a in shown]
    build_tokenizer(texts, VOCABULARY, start)
    tokenizer = Tokenizer.load(start)
    encoder = Encoder(PlainText(), tokenizer, ())
    model = _fresh(seed)
    config = SFTConfig(
        steps=steps,
        batch_size=32,
        learning_rate=3e-3,
        warmup=20,
        seed=seed,
        evaluate_every=steps,
        save_every=steps,
    )
    ledgers = [_ledger(situation, action, encoder) for situation, action in shown]
    sft(model, ledgers, config, folder / "sft")
    save_weights(model, start)
    return start


def _fresh(seed: int) -> "PreTrainedModel":
    from dataclasses import replace

    return new_model(replace(_RECIPE, seed=seed))


def _ledger(situation: Situation, action: Action, encoder: Encoder) -> Ledger:
    tokenizer = encoder.tokenizer
    end = tokenizer.encode(tokenizer.special_text("eos_token") or "")
    ledger = Ledger(encoder.prompt(situation.question))
    ledger.append(Span.policy([*tokenizer.encode(written(action)), *end]))
    return ledger
