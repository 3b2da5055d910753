"""From a seed to the checkpoint that ships with the package."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from interlace.rollout.ledger import Ledger
from interlace.train.coldstart import Demonstration
from interlace.train.data.task_tools import TaskTools
from interlace.train.local.checkpoint import replace_folder, save_weights
from interlace.train.local.sft import SFTConfig, SFTReport, sft

from .lessons import DRILL, FULL, POLISH, PRACTICE, Lesson, demonstrations, ledgers, texts
from .model_card import CARD, write_section
from .tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Recipe", "new_model", "train"]


DRILLING = SFTConfig(steps=2400, batch_size=32, learning_rate=2e-3)
TRAINING = SFTConfig(steps=1400, batch_size=8, learning_rate=1e-3)
PRACTISING = SFTConfig(steps=1800, batch_size=8, learning_rate=1.2e-3)
POLISHING = SFTConfig(steps=600, batch_size=8, learning_rate=8e-4)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe of the nano policy. The defaults are those of the shipped one."""

    seed: int = 0
    vocabulary: int = 1024
    width: int = 192
    layers: int = 4
    heads: int = 6
    key_value_heads: int = 2
    head_size: int = 32
    hidden: int = 512
    context: int = 2048
    drills: int = 20_000
    """Single problems without the system prompt, which come first."""
    conversations: int = 8_000
    practice: int = 9_000
    """Conversations again, twice so many others, with more of what takes longest to learn."""
    polish: int = 4_000
    """And again, with the arithmetic that is known by heart or not at all."""
    held_out: int = 200
    """Of each lesson: demonstrations whose loss is measured and never trained on."""
    drilling: SFTConfig = DRILLING
    training: SFTConfig = TRAINING
    practising: SFTConfig = PRACTISING
    polishing: SFTConfig = POLISHING
    threads: int = 2
    """Part of the recipe, since the order of sums depends on it."""


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
    make: Callable[[Qwen3Config], PreTrainedModel] = Qwen3ForCausalLM
    return make(config)


def train(recipe: Recipe, work: Path, target: Path, progress: Progress) -> None:
    """Make the policy. `work` holds what a broken-off run needs to continue, `target` the result.

    What is in `target` is replaced at the end, all at once; Python files in it stay.
    """
    import torch

    torch.set_num_threads(recipe.threads)
    lessons = [
        (DRILL, recipe.drills, recipe.drilling),
        (FULL, recipe.conversations, recipe.training),
        *((lesson, recipe.practice, recipe.practising) for lesson in PRACTICE),
        (POLISH, recipe.polish, recipe.polishing),
    ]
    made = [
        asyncio.run(_demonstrations(lesson, count + recipe.held_out, recipe, progress))
        for lesson, count, _ in lessons
    ]
    fresh = work / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    build_tokenizer(texts([each for part in made[:2] for each in part]), recipe.vocabulary, fresh)
    model = new_model(recipe)
    notes = []
    for (lesson, _, config), part in zip(lessons, made, strict=True):
        written = ledgers(lesson, part, fresh)
        # A few conversations over a large database are longer than the model can read.
        every = [ledger for ledger in written if len(ledger) <= recipe.context]
        config = replace(config, seed=recipe.seed)
        report = sft(
            model,
            every[recipe.held_out :],
            config,
            work / f"{lesson.name}-{lesson.seed}",
            held_out=every[: recipe.held_out],
            progress=partial(_stepped, progress, lesson.name, config.steps),
        )
        notes.append(_note(lesson, every[recipe.held_out :], config, report))
    _finish(model, fresh, f"This checkpoint: seed {recipe.seed}.\n\n" + "\n".join(notes))
    _install(fresh, target)


def _install(fresh: Path, target: Path) -> None:
    for file in target.glob("*.py"):
        shutil.copy2(file, fresh)
    target.parent.mkdir(parents=True, exist_ok=True)
    ready = target.with_name(target.name + ".writing")  # beside it: renames don't cross disks
    shutil.rmtree(ready, ignore_errors=True)
    shutil.copytree(fresh, ready)
    replace_folder(ready, target)


def _stepped(progress: Progress, lesson: str, total: int, step: int, report: SFTReport) -> None:
    recent = report.losses[-20:]
    remark = f"loss {sum(recent) / len(recent):.3f}"
    if report.held_out:
        remark += f", on unseen ones {report.held_out[max(report.held_out)]:.3f}"
    progress(f"training, {lesson}s", step, total, remark)


async def _demonstrations(
    lesson: Lesson, total: int, recipe: Recipe, progress: Progress
) -> list[Demonstration]:
    def made(count: int) -> None:
        if count % 20 == 0 or count == total:
            progress(f"writing {lesson.name}s", count, total, "")

    async with TaskTools() as world:
        return await demonstrations(lesson, total, recipe.seed, world, made)


def _finish(model: "PreTrainedModel", folder: Path, training: str) -> None:
    """Write the weights, and a model card whose measured sections are still empty."""
    save_weights(model, folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = CARD.replace("__PARAMETERS__", f"{parameters / 1e6:.2f} million")
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_section(folder / "README.md", "training", training)


def _note(lesson: Lesson, trained: list[Ledger], config: SFTConfig, report: SFTReport) -> str:
    learnt = sum(int((ledger.loss_weights > 0).sum()) for ledger in trained)
    tokens = sum(map(len, trained))
    loss = report.held_out[config.steps]
    return (
        f"- {lesson.name}: {len(trained):,} demonstrations ({tokens:,} tokens, "
        f"{learnt / tokens:.0%} of them learnt from): {config.steps:,} steps of "
        f"{config.batch_size}, AdamW at "
        f"{config.learning_rate:g}, {report.seconds / 60:.0f} minutes; loss on unseen ones "
        f"{loss:.3f}."
    )
