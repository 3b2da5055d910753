"""Results of many attempts at many tasks: accuracy, pass@k, maj@k, and how tools were used.

All figures follow from the attempts alone, so a saved evaluation can be looked at, plotted and
compared without the model.
"""

import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ...rollout.episode_log import read_episodes
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode
from ...tools.errors import DataError
from ...tools.files import read_object, write_whole
from ..rewards import Checker
from .attempts import Attempt, read_attempts
from .intervals import Estimate, bounded_mean, free_mean, pass_at_k, wilson

__all__ = ["Evaluation", "load_evaluation", "measure", "save_evaluation", "task_mean"]

SCHEMA_VERSION = 1
_CHOICES = 200
"""Choices of k attempts that maj@k is averaged over at most, for one task."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A run's attempts, those that say nothing, and what was run.

    `unjudged` counts the attempts that say nothing about the policy, by what came between: they are
    in no figure. `run` is what the attempts were made with.
    """

    attempts: list[Attempt]
    unjudged: dict[str, int] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def by_task(self) -> dict[str, list[Attempt]]:
        """The attempts at each task, in the order of their samples."""
        groups: defaultdict[str, list[Attempt]] = defaultdict(list)
        for attempt in sorted(self.attempts, key=lambda attempt: attempt.sample):
            groups[attempt.task].append(attempt)
        return dict(groups)

    @property
    def n(self) -> int:
        """The most attempts that there are at a task."""
        return max((len(group) for group in self.by_task.values()), default=0)

    @property
    def accuracy(self) -> Estimate:
        """The mean over tasks of the share of right attempts: avg@n.

        With one attempt at each task the interval is Wilson's, else Wilson's over tasks. Raises
        DataError where no attempt could be judged.
        """
        groups = self.by_task.values()
        if not groups:
            raise DataError("no attempt could be judged: there is nothing to measure")
        if self.n == 1 and len(groups) > 1:
            return wilson(sum(attempt.correct for attempt in self.attempts), len(self.attempts))
        return bounded_mean([sum(a.correct for a in group) / len(group) for group in groups])

    @property
    def pass_at(self) -> dict[int, Estimate]:
        """pass@k, unbiased, for the number of attempts that at least half of the tasks have, and
        for powers of two below it; over these tasks alone, so that it never falls with k.
        """
        return {
            k: bounded_mean([pass_at_k(len(g), sum(a.correct for a in g), k) for g in groups])
            for k, groups in self._with_attempts()
        }

    @property
    def majority_at(self) -> dict[int, Estimate]:
        """maj@k for the same k: the answer most often given among k attempts, as `elect` finds it.

        A task's value is the mean over all ways to choose k of its attempts (over 200 drawn ones,
        if there are more); answers that tie in votes and in log-probability share it.
        """
        return {
            k: bounded_mean([_majority(group, k) for group in groups])
            for k, groups in self._with_attempts()
        }

    def _with_attempts(self) -> Iterable[tuple[int, list[list[Attempt]]]]:
        counts = sorted(map(len, self.by_task.values()), reverse=True)
        most = counts[(len(counts) - 1) // 2] if counts else 0
        groups = [group for group in self.by_task.values() if len(group) >= most]
        for k in sorted({2**i for i in range(most.bit_length())} | {most} - {0}):
            yield k, groups

    @property
    def tasks_at(self) -> dict[int, int]:
        """The number of tasks that pass@k and maj@k are taken over, the same for each k."""
        return {k: len(groups) for k, groups in self._with_attempts()}

    def mean(self, name: str) -> Estimate:
        """The mean over tasks of a field of the attempts, with a bootstrap over tasks, or Student's
        interval if they are few; attempts without a value are left out.
        """
        values = [task_mean(group, name) for group in self.by_task.values()]
        return free_mean([value for value in values if value is not None])

    @property
    def tool_error_rate(self) -> float | None:
        """The share of all calls run that failed by the policy's doing; None without a call."""
        calls = sum(attempt.calls for attempt in self.attempts)
        return sum(a.failed_calls for a in self.attempts) / calls if calls else None

    def behaviour(self) -> dict[str, float | int | None]:
        """ReTool's statistics of how code is used (arXiv 2504.11536, section 3.3, figure 3).

        A response is an attempt, code any call. Where there is nothing to count, None.
        """
        every = self.attempts
        calling = [attempt for attempt in every if attempt.calls]
        erring = [attempt for attempt in every if attempt.failed_calls]
        corrected = [attempt for attempt in every if attempt.corrected]
        return {
            "response_tokens": _share([a.response_tokens for a in every]),
            "code_ratio": _share([a.calls > 0 for a in every]),
            "code_lines": _share([a.code_lines for a in every]),
            "codes": sum(a.calls for a in every),
            "correct_codes": sum(a.calls - a.failed_calls for a in every),
            "last_code_passes_when_right": _share(
                [bool(a.last_call_passed) for a in calling if a.correct]
            ),
            "last_code_passes_when_wrong": _share(
                [bool(a.last_call_passed) for a in calling if not a.correct]
            ),
            "first_code_at": _share([a.first_call for a in every if a.first_call is not None]),
            "responses_with_errors": len(erring),
            "self_corrections": len(corrected),
            "self_correction_ratio": _share([a.corrected for a in erring]),
            "right_after_self_correction": _share([a.correct for a in corrected]),
        }

    def summary(self) -> dict[str, Any]:
        """All figures as plain data; without a judged attempt, the counts alone."""
        means = ("tokens", "response_tokens", "turns", "calls", "seconds")
        counts = {
            "tasks": len(self.by_task),
            "attempts": len(self.attempts),
            "n": self.n,
            "unjudged": self.unjudged,
        }
        if not self.attempts:
            return {**counts, "accuracy": None}
        return {
            **counts,
            "accuracy": self.accuracy.to_json(),
            "pass_at": {str(k): e.to_json() for k, e in self.pass_at.items()},
            "tasks_at": {str(k): count for k, count in self.tasks_at.items()},
            "majority_at": {str(k): e.to_json() for k, e in self.majority_at.items()},
            "means": {name: self.mean(name).to_json() for name in means},
            "tool_error_rate": self.tool_error_rate,
            "behaviour": self.behaviour(),
            "stops": dict(Counter(attempt.stop for attempt in self.attempts).most_common()),
        }


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _majority(group: Sequence[Attempt], k: int) -> float:
    """The share of the choices of k attempts whose most frequent answer is right."""
    # The order of attempts must not matter, to the choices that are drawn either.
    group = sorted(group, key=lambda a: (a.answer or "", a.vote is None, a.logprob or 0, a.correct))
    if math.comb(len(group), k) <= _CHOICES:
        choices: list[Sequence[Attempt]] = list(itertools.combinations(group, k))
    else:
        draw = random.Random(0)
        choices = [draw.sample(group, k) for _ in range(_CHOICES)]
    return sum(map(_elected, choices)) / len(choices)


def _elected(chosen: Sequence[Attempt]) -> float:
    """1 if the most frequent answer is right, else 0; the share of right ones among equals.

    Of equally frequent answers the surer one is elected, as by `elect`. Without any vote, an
    attempt with an answer is as good as another.
    """
    camps: defaultdict[int, list[Attempt]] = defaultdict(list)
    for attempt in chosen:
        if attempt.vote is not None:
            camps[attempt.vote].append(attempt)
    if not camps:
        equals = [attempt for attempt in chosen if attempt.answer is not None]
    else:
        strengths = {}
        for vote, camp in camps.items():
            sure = [-math.inf if attempt.logprob is None else attempt.logprob for attempt in camp]
            strengths[vote] = len(camp), sum(sure) / len(sure)
        best = max(strengths.values())
        equals = [camps[vote][0] for vote, strength in strengths.items() if strength == best]
    return sum(attempt.correct for attempt in equals) / len(equals) if equals else 0.0


def task_mean(group: Iterable[Attempt], name: str) -> float | None:
    """The mean of a field over the attempts at a task that have it; None if none has."""
    known = [float(value) for a in group if (value := getattr(a, name)) is not None]
    return sum(known) / len(known) if known else None


def measure(
    episodes: Iterable[Episode],
    checker: Checker,
    *,
    tokenizer: Tokenizer | None = None,
    run: Mapping[str, Any] | None = None,
) -> Evaluation:
    """The evaluation of episodes, as `read_attempts` reads them. Raises DataError as it does."""
    attempts, unjudged = read_attempts(episodes, checker, tokenizer)
    return Evaluation(attempts, dict(unjudged), dict(run or {}))


def load_evaluation(path: str | Path, checker: Checker | None = None) -> Evaluation:
    """An evaluation from what `interlace eval` wrote (its folder, or the JSON in it), or from a log
    of episodes, which is judged again. A folder without results, because its run was stopped, is
    read from its log. Raises DataError for anything else.
    """
    path, planned = Path(path), None
    if path.is_dir():
        finished = path / "results.json"
        log = path / "episodes.jsonl"
        stopped = log.is_file() and not finished.exists()
        planned = _planned(path / "run.json") if stopped else None
        path = log if stopped else finished
    if path.suffix == ".jsonl":
        with nullcontext(checker) if checker is not None else Checker() as judge:
            episodes = list(read_episodes(path))
            settings = episodes[0].settings if episodes else {}
            run = {**settings, "checker": judge.name, "log": str(path)}
            run |= {} if planned is None else {"planned": planned}
            return measure(episodes, judge, run=run)
    try:
        data = read_object(path)
        if data.get("schema_version", 1) not in range(SCHEMA_VERSION + 1):
            raise DataError(f"{path} was written by a newer version: upgrade interlace")
        return TypeAdapter(Evaluation).validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path} is not an evaluation: {place}: {first['msg']}") from error
    except ValueError as error:
        raise DataError(f"{path} is not an evaluation: {error}") from error


def _planned(settings: Path) -> int | None:
    """The number of attempts that a run was begun for, as far as its settings say."""
    try:
        known = read_object(settings)
        return int(known["n"] * known["task_count"])
    except (DataError, ValueError, KeyError, TypeError, OverflowError):
        return None


def save_evaluation(evaluation: Evaluation, path: str | Path) -> None:
    """Write an evaluation as JSON, its figures with the attempts; whole or not at all.

    Raises DataError where the file can't be written.
    """
    data = {"summary": evaluation.summary(), **asdict(evaluation)}
    text = json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(path, text.encode("utf-8", "replace"))  # an answer may hold lone surrogates
