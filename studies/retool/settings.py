"""The settings of the comparison, and its expected result."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from interlace.tools.errors import DataError

__all__ = ["EXPECTATION", "QUICK", "STORIES", "Settings"]

EXPECTATION = """\
Written before the first full run. From starts of equal accuracy and with equal numbers of sampled
tokens, reinforcement learning raises held-out accuracy faster and further with an interpreter than
in text: the paired difference of the areas under the curves, and that of the last accuracies, are
above 0 with intervals that leave 0 out; the arm with the interpreter passes the last accuracy of
the text arm before the budget is used up, and not the other way round. The share of attempts that
call the interpreter grows. With the loss on tool output too, accuracy and the share of attempts
that are worked out by a call without an error are lower than with the mask."""
"""The direction that ReTool (arXiv 2504.11536) reports at 32 billion parameters, as it should show
in this small."""


STORIES = {"demonstrations": 1, "choose": 2, "test": 3, "drills": 4, "train": 1000}
"""Seeds of the stories; a run adds its own to the last."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the comparison. The defaults are those of the full run."""

    seeds: tuple[int, ...] = tuple(range(10))
    """Each drives the tasks, the sampling and so the updates of one run of every arm."""
    unmasked_seeds: int = 5
    """Of the first so many, there is a run without the mask as well."""

    # The policy.
    vocabulary: int = 400
    width: int = 128
    layers: int = 2
    context: int = 256

    # Before that: reading stories, which both arms need and share.
    drill_rate: float = 4e-3
    drill_steps: int = 400

    # Cold start.
    demonstrations: int = 4000
    target: float = 0.2
    """The accuracy at which the first arm's cold start ends."""
    sft_rate: float = 1e-3
    sft_batch: int = 64
    sft_steps: int = 4000
    """The cold start fails where its accuracy is not reached by then."""
    look_every: int = 20
    """Steps between checkpoints that are looked at."""
    choosing: int = 600
    """Held-out stories for that: a quarter of them at a glance, all where that seems enough."""

    # Reinforcement learning.
    steps: int = 30
    tokens: int = 4096
    """Sampled in a step, in every arm."""
    group: int = 8
    rate: float = 1e-4
    evaluate_every: int = 6
    testing: int = 300
    """Held-out stories on which curves are measured, one attempt each."""
    attempts: int = 8
    """At each of them, for the starts."""

    workers: int = 2
    """Runs at a time, each on one core. Not part of what is computed."""

    @property
    def plan(self) -> list[tuple[str, int]]:
        """The runs, variant and seed: pairs first, so that few are whole ones too."""
        pairs = [(variant, seed) for seed in self.seeds for variant in ("tools", "text")]
        return pairs + [("unmasked", seed) for seed in self.seeds[: self.unmasked_seeds]]

    def write(self, folder: Path) -> None:
        """Into the run's folder. Raises DataError where that holds a run made otherwise."""
        path = folder / "settings.json"
        text = json.dumps(self._identity(), indent=1) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise DataError(
                f"{folder} holds a run with other settings: name another folder with --out, or "
                "remove it"
            )
        path.write_text(text, encoding="utf-8")

    def _identity(self) -> dict[str, object]:
        values = dataclasses.asdict(self)
        del values["workers"]
        return values

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the settings in a run's folder."""
        values = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        return cls(**values | {"seeds": tuple(values["seeds"])})


QUICK = Settings(seeds=(0, 1, 2), unmasked_seeds=1, steps=12, attempts=4)
"""For a first look: three seeds and a shorter way. Its intervals say little."""
