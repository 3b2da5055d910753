"""One run of reinforcement learning: an arm, a seed, and how accuracy went on held-out stories."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode
from interlace.tools.files import write_whole
from interlace.train.config import TrainConfig
from interlace.train.data.stream import TaskStream
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.local.training_setup import load_trainable
from interlace.train.rewards import CORRECT, Checker, RewardPart, Rewards, why_unscored

from .arms import ARMS, LIMITS, Arm
from .cold_starts import read_start
from .masking import Unmasked
from .sampling import Examiner, held, is_right, policy_of
from .settings import STORIES, Settings
from .tasks import Stories

__all__ = [
    "VARIANTS",
    "Point",
    "Run",
    "TokenBudget",
    "measure",
    "run_folder",
    "test_tasks",
    "train",
]

VARIANTS: dict[str, tuple[Arm, type[Trainer]]] = {
    "tools": (ARMS["tools"], Trainer),
    "text": (ARMS["text"], Trainer),
    "unmasked": (ARMS["tools"], Unmasked),
}
"""What can be run: an arm and its trainer. The last one is the intervention on the mask."""


@dataclass(frozen=True, slots=True)
class Point:
    """A run after some steps: its cost so far, and how it does on held-out stories."""

    step: int
    tokens: float
    """Sampled in training until then."""
    seconds: float
    """Spent in training until then, on one core; evaluations are not in it."""
    accuracy: float
    calling: float
    """The share of attempts that call the interpreter."""
    clean: float
    """The share that is worked out by calls, none of which failed or was badly formed."""
    worked: float
    """The share that is worked out in the arm's way, by calls or in written steps."""
    response_tokens: float
    """Sampled per attempt."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    variant: str
    seed: int
    points: list[Point]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The run in a folder; None where it is not finished."""
        path = folder / "run.json"
        if not path.exists():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["variant"], data["seed"], [Point(**point) for point in data["points"]])

    def write(self, folder: Path) -> None:
        """All at once: what is there is finished."""
        write_whole(folder / "run.json", json.dumps(asdict(self), indent=1) + "\n")


class TokenBudget(TaskStream):
    """Tasks for a step, as many as bring the tokens sampled since the beginning nearest to budget.

    So every arm samples the same number of tokens, however long its responses are.

    Example:
        >>> stream = TokenBudget(iter(Stories(0)), tokens=1000, group=4, each=10.0)
        >>> len(stream.draw(1))  # 25 x 4 x 10
        25
        >>> stream.note(1500)  # they were longer than expected, so fewer follow
        >>> len(stream.draw(1))  # 8 x 4 x 15 = 480 of the 500 that are left
        8
    """

    def __init__(self, tasks: Iterator[Task], *, tokens: float, group: int, each: float) -> None:
        super().__init__(tasks, seed=0)
        self._tokens = tokens
        self._group = group
        self._each = each
        self._drawn = 0
        self._steps = 0
        self.used = 0.0
        """Tokens sampled until now."""

    def draw(self, count: int) -> list[Task]:
        """The next step's tasks; what the trainer asks for does not count."""
        self._steps += 1
        left = self._steps * self._tokens - self.used
        self._drawn = max(2, round(left / (self._group * self._each)))
        return super().draw(self._drawn)

    def note(self, tokens: float) -> None:
        """Count the tokens the step sampled."""
        self.used += tokens
        self._each = max(1.0, tokens / (self._drawn * self._group))


def run_folder(folder: Path, variant: str, seed: int) -> Path:
    """The folder of a run's results."""
    return folder / "runs" / f"{variant}-{seed:02}"


def test_tasks(settings: Settings) -> list[Task]:
    """The held-out stories of all curves."""
    source = Stories(STORIES["test"], "test")
    return [source[index] for index in range(settings.testing)]


def measure(episodes: Sequence[Episode], arm: Arm, tokenizer: Tokenizer) -> dict[str, float]:
    """The shares that a `Point` holds. What failed on our side counts nowhere."""
    episodes = [episode for episode in episodes if why_unscored(episode) is None]
    n = len(episodes)
    calls = [episode.trajectory.calls for episode in episodes]
    clean = [bool(each) and all(call.error is None for call in each) for each in calls]
    written = ["=" in _first_words(episode, tokenizer) for episode in episodes]
    return {
        "accuracy": sum(map(is_right, episodes)) / n,
        "calling": sum(map(bool, calls)) / n,
        "clean": sum(clean) / n,
        "worked": sum(clean if arm.calls else written) / n,
        "response_tokens": sum(e.trajectory.sampled_tokens for e in episodes) / n,
    }


def _first_words(episode: Episode, tokenizer: Tokenizer) -> str:
    turns = episode.trajectory.turns
    return episode.trajectory.text(turns[0], tokenizer) if turns else ""


def train(
    settings: Settings,
    folder: Path,
    variant: str,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Make one run, from the start of its arm. One that was broken off is made again.

    `progress(step)` is called after each step.
    """
    import torch

    torch.set_num_threads(1)
    arm, trainer_class = VARIANTS[variant]
    out = run_folder(folder, variant, seed)
    shutil.rmtree(out, ignore_errors=True)
    config = _config(settings, folder / arm.name / "start", out, seed)
    with _learner(settings, config, arm) as (setup, budget, examiner):

        def examine(step: int, seconds: float) -> Point:
            # The same seeds in every run: at the same step, runs differ in their weights alone.
            shares = measure(examiner.attempts(1, step), arm, examiner.engine.tokenizer)
            return Point(step, budget.used, seconds, **shares)

        points, seconds = [examine(0, 0.0)], 0.0

        def stepped(step: int, metrics: dict[str, float]) -> None:
            nonlocal seconds
            seconds += metrics["seconds"]
            budget.note(metrics["tokens"])
            if step % settings.evaluate_every == 0 or step == settings.steps:
                points.append(examine(step, seconds))
            if progress is not None:
                progress(step)

        with Record(out) as record:
            trainer_class(config, setup).train(record, progress=stepped)
    run = Run(variant, seed, points)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)  # of 30 runs they would take much room
    run.write(out)
    return run


def _config(settings: Settings, start: Path, out: Path, seed: int) -> TrainConfig:
    return TrainConfig(
        model=str(start),
        out=str(out),
        seed=seed,
        steps=settings.steps,
        group_size=settings.group,
        learning_rate=settings.rate,
        objective="grpo",
        # Engine and trainer are one model in float32: there is no gap to correct, and the arm
        # without a mask has no sampling probability of what it did not sample.
        importance_cap=None,
        temperature=1.0,
        max_tokens=LIMITS.max_tokens,
        device="cpu",
        save_every=settings.steps,
    )


@contextmanager
def _learner(
    settings: Settings, config: TrainConfig, arm: Arm
) -> Iterator[tuple[TrainingSetup, TokenBudget, Examiner]]:
    """The setup, its token budget, and its examiner."""
    folder = Path(config.model)
    start = read_start(folder.parents[1], arm.name)
    assert start is not None, "runs begin when the starts are made"
    engine = TransformersEngine.load(folder, device="cpu")
    policy = policy_of(arm, engine)
    source = iter(Stories(STORIES["train"] + config.seed))
    budget = TokenBudget(source, tokens=settings.tokens, group=settings.group, each=start.tokens)
    try:
        with Checker() as checker, Examiner(engine, arm, test_tasks(settings)) as examiner:
            setup = TrainingSetup(
                model=load_trainable(folder, config),
                policy=policy,
                rewards=Rewards(RewardPart(CORRECT, checker.correct)),
                tasks=budget,
                resource=held(policy),
                tokenizer_from=folder,
            )
            yield setup, budget, examiner
    finally:
        asyncio.run(engine.aclose())
