"""The page that the comparison ends in: what was seen, favourable or not, and what it shows."""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from interlace.train.evaluation.intervals import Estimate, bootstrap
from interlace.train.evaluation.results import Evaluation

from .arms import ARMS
from .cold_starts import Start
from .curves import Comparison, Crossing, areas, compare, horizon, last, passes
from .figures import LABELS, draw_accuracy, draw_behaviour, draw_mask
from .runs import Run
from .settings import EXPECTATION, Settings

__all__ = ["Results", "write_page"]

PICTURES = "reproduce_retool"


@dataclass(frozen=True, slots=True)
class Results:
    """All that was made."""

    settings: Settings
    starts: Mapping[str, Start]
    evaluations: Mapping[str, Evaluation]
    """Of the starts, on the test stories."""
    runs: Mapping[str, Sequence[Run]]
    """By variant, in the order of the seeds."""


def write_page(results: Results, folder: Path) -> Path:
    """Write `reproduce_retool.md` and its pictures into `folder`; the page's path."""
    pictures = folder / PICTURES
    draw_accuracy(results.runs, pictures / "accuracy.png")
    draw_behaviour(results.runs, pictures / "behaviour.png")
    parts = [_head(results), _starts(results), _curves(results), _behaviour(results)]
    if "unmasked" in results.runs:
        draw_mask(results.runs, pictures / "mask.png")
        parts.append(_mask(results))
    parts.append(_limits(results))
    page = folder / "reproduce_retool.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def _head(results: Results) -> str:
    settings, runs = results.settings, results.runs
    number = sum(map(len, runs.values()))
    seconds = sum(run.points[-1].seconds for part in runs.values() for run in part)
    return f"""\
# Learning to use a tool, and learning to do without

ReTool (arXiv 2504.11536) trains a model of 32 billion parameters by reinforcement learning, once
with a code interpreter and once in text, and reports that with the interpreter it gets further in
fewer steps. This page tests that mechanism at a size that anyone can repeat:

```bash
make reproduce-retool              # this page, under an hour on two cores
make reproduce-retool QUICK=1      # three seeds, fewer steps
```

What was run: {_count(settings.seeds, "seed")}, {settings.steps} steps of GRPO in each of
{number} runs, {settings.tokens:,} sampled tokens a step;
{seconds / 60:.0f} minutes of training (wall time of all runs), not including cold starts
and evaluations. The machine:
{os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}, torch
{version("torch")}, on {sys.platform}. The run's folder holds every episode of every step.

## What was expected

{EXPECTATION}"""


def _starts(results: Results) -> str:
    lines = [
        "## The starts",
        "",
        "The stories (`studies/retool/tasks.py`): a number of things that changes one to three "
        "times, as in *Ann has 12 nuts, buys 9, sells 3. How many nuts?* A fresh policy first "
        "learns to read them and to answer with `12+9-3`, without working it out. Both arms start "
        "from this policy. Each learns from "
        f"{results.settings.demonstrations:,} demonstrations of its kind, on the same stories: "
        "`print(12+9-3)` and what the interpreter returns, or `12+9=21, 21-3=18`. "
        f"{ARMS['text'].guesses:.0%} of those in text give the answer at once, without working it "
        f"out, and {ARMS['tools'].guesses:.0%} of the others: an interpreter always adds "
        "correctly, so the two arms are equally accurate only if the arm that calls it works "
        "stories out less often. The demonstrations cover 12 of the 20 verbs. Two things are left "
        "to learn from outcomes: to work the story out, and the meaning of the other verbs. The "
        "checkpoint is chosen by a rule that was fixed before (`studies/retool/cold_starts.py`). "
        "On stories that were not used for this choice:",
        "",
        "| arm | steps of fine-tuning | accuracy | pass@8 | tokens per attempt |",
        "|---|---|---|---|---|",
    ]
    for name, start in results.starts.items():
        found = results.evaluations[name]
        k = max(found.pass_at)
        head = "" if k == 8 else f" (pass@{k})"
        lines.append(
            f"| {LABELS[name]} | {start.steps:g} | {_share(found.accuracy)} | "
            f"{_share(found.pass_at[k])}{head} | {found.mean('tokens').value:.0f} |"
        )
    gap = abs(_value(results, "tools") - _value(results, "text"))
    verdict = "within" if gap <= 0.03 else "**not within**"
    told = f"They differ by {100 * gap:.1f} points, {verdict} the 3 wanted."
    if gap > 0.03:
        told += (
            " So the accuracies below do not come from equal starts, and the expectation is not "
            "tested as intended. Read the gains as well, with care, since a lower start has more "
            "room to rise."
        )
    return "\n".join([*lines, "", told])


def _value(results: Results, arm: str) -> float:
    return results.evaluations[arm].accuracy.value


def _curves(results: Results) -> str:
    runs = {name: results.runs[name] for name in ("tools", "text")}
    lines = [
        "## What reinforcement learning makes of them",
        "",
        f"![Accuracy against steps, tokens and seconds]({PICTURES}/accuracy.png)",
        "",
        "Means over seeds with 95 % intervals of a bootstrap over seeds; thin lines are seeds. "
        f"Accuracy: {results.settings.testing} held-out stories, one attempt each at temperature "
        "1. Differences are paired: a seed has the same stories in both arms.",
        "",
        "| | with an interpreter | in text | difference | p | seeds above |",
        "|---|---|---|---|---|---|",
    ]
    begins = [[run.points[0].accuracy for run in part] for part in runs.values()]
    ends = [last(part) for part in runs.values()]
    lines += [_row("accuracy at the start", *begins), _row("accuracy at the end", *ends)]
    for axis, name in (("step", "steps"), ("tokens", "tokens"), ("seconds", "seconds")):
        until = horizon(runs, axis)
        heights = [areas(part, axis, until) for part in runs.values()]
        lines.append(_row(f"mean accuracy over {name} (area under the curve)", *heights))
    gains = [[b - a for a, b in zip(*both, strict=True)] for both in zip(begins, ends, strict=True)]
    lines.append(_row("gain (not part of what was expected)", *gains))
    lines += ["", _passing(runs["tools"], runs["text"], "with an interpreter", "in text")]
    lines += [_passing(runs["text"], runs["tools"], "in text", "with an interpreter")]
    used = [sum(r.points[-1].tokens for r in part) / len(part) for part in runs.values()]
    took = [sum(r.points[-1].seconds for r in part) / len(part) for part in runs.values()]
    lines += [
        f"A run took {used[0]:,.0f} sampled tokens and {took[0]:.0f} s with an interpreter, "
        f"{used[1]:,.0f} tokens and {took[1]:.0f} s in text (one core each, two runs at a time). "
        "Seconds are wall time, and include any other load on the machine."
    ]
    return "\n".join([*lines, "", _verdict(runs["tools"], runs["text"])])


def _row(name: str, a: Sequence[float], b: Sequence[float]) -> str:
    found = compare(a, b)
    return (
        f"| {name} | {_share(bootstrap(a))} | {_share(bootstrap(b))} | {_points(found)} "
        f"| {found.p:.4f} | {found.above} of {found.seeds} |"
    )


def _passing(a: Sequence[Run], b: Sequence[Run], one: str, other: str) -> str:
    found: Crossing | None = passes(a, b)
    if found is None:
        return f"The mean {one} never reaches the last mean {other}."
    return (
        f"The mean {one} has reached the last mean {other} by step {found.step} "
        f"({found.tokens:,.0f} sampled tokens, {found.seconds:.0f} s)."
    )


def _verdict(tools: Sequence[Run], text: Sequence[Run]) -> str:
    until = horizon({"tools": tools, "text": text}, "tokens")
    area = compare(areas(tools, "tokens", until), areas(text, "tokens", until)).difference
    end = compare(last(tools), last(text)).difference
    says = [f"the {name} is {_standing(found)}" for name, found in (("area", area), ("end", end))]
    return f"Compared with the expectation, {' and '.join(says)} with the interpreter."


def _standing(found: Estimate) -> str:
    if found.low > 0:
        return "higher"
    return "lower" if found.high < 0 else "not distinguishable"


def _behaviour(results: Results) -> str:
    tools = results.runs["tools"]
    rows = []
    for name, measure in (
        ("attempts that call the interpreter", "calling"),
        ("attempts worked out by clean calls", "clean"),
    ):
        before = bootstrap([getattr(run.points[0], measure) for run in tools])
        rows.append(f"| {name} | {_share(before)} | {_share(bootstrap(last(tools, measure)))} |")
    text = results.runs["text"]
    before = bootstrap([run.points[0].worked for run in text])
    rows.append(
        f"| in text: worked out | {_share(before)} | {_share(bootstrap(last(text, 'worked')))} |"
    )
    return "\n".join(
        [
            "## When it calls",
            "",
            f"![How often stories are worked out]({PICTURES}/behaviour.png)",
            "",
            "| | at the start | at the end |",
            "|---|---|---|",
            *rows,
        ]
    )


def _mask(results: Results) -> str:
    unmasked = results.runs["unmasked"]
    tools = results.runs["tools"][: len(unmasked)]  # the same seeds
    lines = [
        "## The mask",
        "",
        f"![With the mask and without]({PICTURES}/mask.png)",
        "",
        "The same runs, seed by seed, with one difference: the loss counts the interpreter's "
        "output as if the policy had written it (`studies/retool/masking.py`). The measure is the "
        "share of held-out attempts that are worked out by clean calls: well formed, and without "
        "an error.",
        "",
        "| | masked | not masked | difference | p | seeds above |",
        "|---|---|---|---|---|---|",
    ]
    lines.append(_row("clean calls at the end", last(tools, "clean"), last(unmasked, "clean")))
    until = horizon({"a": tools, "b": unmasked}, "tokens")
    heights = [areas(part, "tokens", until, "clean") for part in (tools, unmasked)]
    lines.append(_row("clean calls, mean over tokens", *heights))
    lines.append(_row("accuracy at the end", last(tools), last(unmasked)))
    return "\n".join(lines)


def _limits(results: Results) -> str:
    return """\
## What this shows, and what not

This is a test of a mechanism: how an interpreter changes how fast and how far a policy learns, with
outcomes as the only teacher, equal starts and equal numbers of sampled tokens. It covers one tiny
policy on one kind of made-up story, with one set of hyperparameters that is the same in all arms.
Sizes, the target accuracy of the cold starts and the learning rate were chosen in short pilots with
other seeds, to fit the time and to learn at all.

It does not reproduce ReTool's figures (67.0 on AIME 2024 after 400 steps, 40.0 in text after 1080)
and says nothing about them: they are for 32 billion parameters on competition problems, and would
have to be repeated at that size. A larger model would not need an interpreter for sums of such
numbers. The intervals apply to other seeds on these stories, not to other stories, other policies
or other hyperparameters; all seeds share one start per arm."""


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} paired {name}{'s' * (len(things) != 1)}"


def _share(found: Estimate) -> str:
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _points(found: Comparison) -> str:
    each = found.difference
    return f"{100 * each.value:+.1f} points ({100 * each.low:+.1f} to {100 * each.high:+.1f})"
