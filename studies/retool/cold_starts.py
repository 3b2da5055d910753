"""The cold starts: one for each arm, equal in accuracy.

The rule, fixed beforehand: the policy is fine-tuned on demonstrations and looked at every few
steps, on stories that serve for nothing else, at temperature 1. The first arm's start is the first
checkpoint that answers `target` of them, the other arm's one that answers as many as that one
does. Where a checkpoint answers more than is wanted, the start lies between it and the one looked
at before, on the line between their weights: halving the way finds the accuracy that is nearest.
"""

import asyncio
import copy
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.formats import Encoder
from interlace.rollout.ledger import Ledger
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.tools.errors import ModelError
from interlace.train.coldstart import Demonstration, to_ledger
from interlace.train.local.checkpoint import replace_folder, save_weights
from interlace.train.local.sft import SFTConfig, SFTReport, sft

from ..nano.recipe import Recipe, new_model
from ..nano.tokenizer import build_tokenizer
from .arms import ARMS, Arm, Curt, demonstrations, drills
from .sampling import Examiner, is_right
from .settings import STORIES, Settings
from .tasks import Stories

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Start", "make_starts", "read_start"]

GLANCE = 0.25
"""The share of the stories that every checkpoint is looked at with, one attempt each."""
SLACK = 0.03
"""What seems good enough: so little below the mark at a glance. Then all stories are attempted."""
CONFIRM = 2
"""Attempts at each of them."""
HALVINGS = 4
"""Points between two checkpoints that are looked at."""
NEAR = 0.005
"""What is as near to the mark as can be told."""

Progress = Callable[[str, int, str], None]
"""Called with the stage, how much of it is done, and a remark."""


@dataclass(frozen=True, slots=True)
class Start:
    """The checkpoint that an arm's reinforcement learning begins with."""

    arm: str
    steps: float
    """Of fine-tuning; with a fraction where it lies between two checkpoints."""
    accuracy: float
    """On the stories that it was chosen by."""
    tokens: float
    """Sampled per attempt, on average."""
    looks: list[tuple[float, float]]
    """All that was looked at before: its step (with a fraction, between two) and accuracy."""


class _Found(Exception):
    """Fine-tuning has come to its end."""


def make_starts(
    settings: Settings,
    folder: Path,
    progress: Progress,
    arms: Mapping[str, Arm] = ARMS,
) -> dict[str, Start]:
    """The cold starts, one after the other; what is there already is kept.

    Raises ModelError where an arm does not reach its mark.
    """
    there = {name: start for name in arms if (start := read_start(folder, name)) is not None}
    if len(there) == len(arms):
        return there
    made = {arm.name: _demonstrations(arm, settings, progress) for arm in arms.values()}
    fresh = folder / "tokenizer"
    if not (fresh / "tokenizer.json").exists():
        texts = _texts([each for part in made.values() for each in part])
        build_tokenizer(texts, settings.vocabulary, fresh)
    progress("reading stories", 0, "")
    base = _read_stories(settings, folder)
    starts: dict[str, Start] = {}
    mark = settings.target
    for arm in arms.values():
        start = read_start(folder, arm.name)
        if start is None:
            maker = _Maker(arm, settings, folder, mark, progress)
            start = maker.make(base, made[arm.name])
        starts[arm.name] = start
        mark = start.accuracy
    return starts


def _read_stories(settings: Settings, folder: Path) -> "PreTrainedModel":
    """The policy that both cold starts begin with: it can turn a story into an expression.

    To copy numbers out of a context is what takes a fresh model longest; where each token depends
    on it, it is learnt soonest.
    """
    encoder = Encoder(Curt(), Tokenizer.load(folder / "tokenizer"), ())
    made = drills(settings.demonstrations, STORIES["drills"])
    config = SFTConfig(
        steps=settings.drill_steps,
        batch_size=settings.sft_batch,
        learning_rate=settings.drill_rate,
        evaluate_every=settings.drill_steps,
        save_every=settings.drill_steps,
        seed=1,
    )
    model = _fresh(settings)
    sft(model, [to_ledger(each, encoder) for each in made], config, folder / "base")
    return model


def _demonstrations(arm: Arm, settings: Settings, progress: Progress) -> list[Demonstration]:
    progress(f"demonstrations {arm.label}", 0, "")
    seed = STORIES["demonstrations"]
    count = settings.demonstrations
    return asyncio.run(demonstrations(arm, count, seed))


def _texts(made: Sequence[Demonstration]) -> Iterator[str]:
    """The tokenizer's training texts; both arms share one tokenizer."""
    for each in made:
        yield "system\nuser\nassistant\n<interpreter>\n</interpreter>\n"
        for reply in each.replies:
            yield reply.task.question
            yield from (step.text for step in reply.steps)
    for index in range(2000):  # verbs that no demonstration has
        yield Stories(0)[index].question


def read_start(folder: Path, arm: str) -> Start | None:
    """The start of an arm; None where it is not made yet."""
    path = folder / arm / "start" / "start.json"
    if not path.exists():
        return None
    return Start(**json.loads(path.read_text(encoding="utf-8")))


class _Maker:
    """Makes one arm's start, whose accuracy is to be `mark`."""

    def __init__(
        self, arm: Arm, settings: Settings, folder: Path, mark: float, progress: Progress
    ) -> None:
        self.arm = arm
        self.settings = settings
        self.folder = folder / arm.name
        self.mark = mark
        self.progress = progress
        self.tokenizer = Tokenizer.load(folder / "tokenizer")
        self.looks: list[tuple[float, float]] = []
        self.before: tuple[float, dict[str, torch.Tensor]] | None = None
        """The last checkpoint that was below the mark."""
        self.start: Start | None = None

    def make(self, base: "PreTrainedModel", made: Sequence[Demonstration]) -> Start:
        """Fine-tune a copy of `base` until the mark is reached."""
        settings = self.settings
        encoder = Encoder(Curt(), self.tokenizer, self.arm.tools())
        ledgers: list[Ledger] = [to_ledger(each, encoder) for each in made]
        source = Stories(STORIES["choose"], "choose")
        tasks = [source[index] for index in range(settings.choosing)]
        glance = tasks[: round(GLANCE * len(tasks))]
        model = copy.deepcopy(base)
        sampling = copy.deepcopy(base)
        sampling.eval()  # type: ignore[no-untyped-call]
        engine = TransformersEngine(sampling, self.tokenizer)
        config = SFTConfig(
            steps=settings.sft_steps,
            batch_size=settings.sft_batch,
            learning_rate=settings.sft_rate,
            final=1.0,  # constant: the last step is not known beforehand
            evaluate_every=settings.sft_steps,
            save_every=10 * settings.look_every,
        )
        try:
            with Examiner(engine, self.arm, tasks) as examiner:
                decide = functools.partial(self._decide, examiner, sampling)

                def stepped(step: int, report: SFTReport) -> None:
                    if step % settings.look_every == 0:
                        weights = _weights(model)
                        if self._look(examiner, weights, step, glance) >= self.mark - SLACK:
                            decide(weights, step)
                        else:
                            self.before = step, weights

                sft(model, ledgers, config, self.folder / "sft", progress=stepped)
        except _Found:
            assert self.start is not None
            return self.start
        finally:
            asyncio.run(engine.aclose())
        raise ModelError(
            f"the cold start {self.arm.label} did not reach an accuracy of {self.mark:.1%} in "
            f"{settings.sft_steps} steps: raise sft_steps or lower target"
        )

    def _decide(
        self,
        examiner: Examiner,
        sampling: "PreTrainedModel",
        weights: dict[str, "torch.Tensor"],
        step: float,
    ) -> None:
        """Look more closely; end the cold start here, or a little before, if it is far enough."""
        accuracy = self._look(examiner, weights, step)
        if accuracy < self.mark - NEAR:
            self.before = step, weights
            return
        best = accuracy, step, weights
        if self.before is not None:
            low, high = self.before, (step, weights)
            for _ in range(HALVINGS):
                if abs(best[0] - self.mark) <= NEAR:
                    break
                between = (low[0] + high[0]) / 2, _between(low[1], high[1])
                accuracy = self._look(examiner, between[1], between[0])
                low, high = (between, high) if accuracy < self.mark else (low, between)
                best = min(best, (accuracy, *between), key=lambda at: abs(at[0] - self.mark))
        accuracy, step, weights = best
        examiner.take_weights(weights)
        self.start = Start(self.arm.name, step, accuracy, self.tokens, self.looks)
        self._save(sampling)  # which has the weights just taken
        raise _Found

    def _look(
        self,
        examiner: Examiner,
        weights: dict[str, "torch.Tensor"],
        step: float,
        tasks: Sequence[Task] | None = None,
    ) -> float:
        """The accuracy of these weights: at a glance on the `tasks`, or on all of them."""
        examiner.take_weights(weights)
        episodes = examiner.attempts(CONFIRM if tasks is None else 1, round(step), tasks)
        self.tokens = sum(each.trajectory.sampled_tokens for each in episodes) / len(episodes)
        accuracy = sum(map(is_right, episodes)) / len(episodes)
        self.looks.append((step, accuracy))
        how = "at a glance" if tasks is not None else "on all stories"
        remark = f"accuracy {accuracy:.1%} {how}, wanted {self.mark:.1%}"
        self.progress(f"cold start {self.arm.label}", round(step), remark)
        return accuracy

    def _save(self, model: "PreTrainedModel") -> None:
        """The checkpoint and what is known of it, all at once."""
        assert self.start is not None
        fresh = self.folder / "start.writing"
        fresh.mkdir(parents=True, exist_ok=True)
        save_weights(model, fresh)
        for file in (self.folder.parent / "tokenizer").iterdir():
            (fresh / file.name).write_bytes(file.read_bytes())
        text = json.dumps(asdict(self.start), indent=1) + "\n"
        (fresh / "start.json").write_text(text, encoding="utf-8")
        replace_folder(fresh, self.folder / "start")


def _fresh(settings: Settings) -> "PreTrainedModel":
    """The same untrained weights each time."""
    return new_model(
        Recipe(
            vocabulary=settings.vocabulary,
            width=settings.width,
            layers=settings.layers,
            heads=settings.width // 32,
            hidden=2 * settings.width,
            context=settings.context,
        )
    )


def _weights(model: "PreTrainedModel") -> dict[str, "torch.Tensor"]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _between(
    one: Mapping[str, "torch.Tensor"], other: Mapping[str, "torch.Tensor"]
) -> dict[str, "torch.Tensor"]:
    """Half-way between two checkpoints of one run, which is a checkpoint as good as they are."""
    return {name: (value + other[name]) / 2 for name, value in one.items()}
