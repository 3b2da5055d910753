"""From a seed to the checkpoint that ships with the package."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...rollout.ledger import Ledger
from ...tools.python import PythonTool
from ..coldstart import Demonstration
from ..local.checkpoint import replace_folder
from ..local.sft import SFTConfig, SFTReport, sft
from .card import CARD, write_section
from .data import demonstrations, ledgers, texts
from .tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Recipe", "new_model", "train"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the nano policy is made of. The defaults are the shipped one's."""

    seed: int = 0
    conversations: int = 16_000
    held_out: int = 200
    """Further conversations, whose loss is measured and never trained on."""
    vocabulary: int = 1024
    width: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 2
    head_size: int = 32
    hidden: int = 512
    context: int = 2048
    steps: int = 1600
    batch_size: int = 16
    learning_rate: float = 2e-3
    threads: int = 2
    """Part of the recipe, since the order of sums depends on it."""

    @property
    def sft(self) -> SFTConfig:
        """How it is trained."""
        return SFTConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup=min(50, self.steps // 4),
            seed=self.seed,
        )


Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and a remark."""


def new_model(recipe: Recipe) -> "PreTrainedModel":
    """Freshly drawn weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

    set_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        head_dim=recipe.head_size,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,  # the place of <|im_end|> among the control tokens
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)  # type: ignore[no-untyped-call]


def train(recipe: Recipe, work: Path, target: Path, progress: Progress) -> None:
    """Make the policy. `work` holds what a broken-off run needs to go on, `target` the result.

    What stands in `target` is replaced at the end, all at once; Python files in it stay.
    """
    import torch

    torch.set_num_threads(recipe.threads)
    made = asyncio.run(_demonstrations(recipe, progress))
    tool = PythonTool()
    fresh = work / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    build_tokenizer(texts(made, tool), recipe.vocabulary, fresh)
    every = ledgers(made, fresh, tool)
    held_out, trained = every[: recipe.held_out], every[recipe.held_out :]
    model = new_model(recipe)

    def stepped(step: int, report: SFTReport) -> None:
        recent = report.losses[-20:]
        progress("training", step, recipe.steps, f"loss {sum(recent) / len(recent):.3f}")

    report = sft(model, trained, recipe.sft, work, held_out=held_out, progress=stepped)
    _finish(model, fresh, _training_section(recipe, trained, report))
    for file in target.glob("*.py"):
        shutil.copy2(file, fresh)
    target.parent.mkdir(parents=True, exist_ok=True)
    ready = target.with_name(target.name + ".writing")  # beside it: renames don't cross disks
    shutil.rmtree(ready, ignore_errors=True)
    shutil.copytree(fresh, ready)
    replace_folder(ready, target)


async def _demonstrations(recipe: Recipe, progress: Progress) -> list[Demonstration]:
    total = recipe.conversations + recipe.held_out

    def made(count: int) -> None:
        if count % 20 == 0 or count == total:
            progress("demonstrations", count, total, "")

    return await demonstrations(total, recipe.seed, PythonTool(), made)


def _finish(model: "PreTrainedModel", folder: Path, training: str) -> None:
    """Write the weights, and a model card whose measured sections are still empty."""
    model.generation_config.do_sample = False
    model.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = CARD.replace("__PARAMETERS__", f"{parameters / 1e6:.2f} million")
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_section(folder / "README.md", "training", training)


def _training_section(recipe: Recipe, trained: list[Ledger], report: SFTReport) -> str:
    learnt = sum(int((ledger.loss_weights > 0).sum()) for ledger in trained)
    tokens = sum(map(len, trained))
    last = report.held_out[recipe.steps]
    return (
        f"This checkpoint: seed {recipe.seed}, {len(trained):,} conversations ({tokens:,} tokens, "
        f"{learnt / tokens:.0%} of them learnt from), {recipe.steps:,} steps of "
        f"{recipe.batch_size} conversations, AdamW at {recipe.learning_rate:g}, "
        f"{report.seconds / 60:.0f} minutes on {recipe.threads} threads of a CPU; "
        f"loss on unseen conversations {last:.3f}."
    )
