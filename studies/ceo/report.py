"""The results of the seeds, as a page."""

from collections.abc import Sequence

from interlace.train.evaluation.intervals import bootstrap, sign_flip

from .environment import ACTIONS, best, situations
from .learn import Seed

__all__ = ["page"]


def page(seeds: Sequence[Seed], expectation: str) -> str:
    """Markdown: a row a seed, means with intervals over seeds, paired differences."""
    tests = situations("test")
    optimum = sum(situation.reward(best(situation)) for situation in tests) / len(tests)
    at_random = sum(s.reward(a) for s in tests for a in ACTIONS) / len(tests) / len(ACTIONS)
    every = [(a, sum(s.reward(a) for s in tests) / len(tests)) for a in ACTIONS]
    action, fixed = max(every, key=lambda each: each[1])
    lines = [
        "# The CEO learns",
        "",
        f"{len(seeds)} seeds, {len(tests)} held-out situations; reward is the team's chance of "
        "solving the problem less the price of its tokens.",
        f"At random {at_random:.3f}; the best fixed allocation ({action.experts} experts of "
        f"{action.tokens} tokens) {fixed:.3f}; the optimum {optimum:.3f}.",
        "",
        "| seed | valid | reward behind SFT | valid | reward behind GRPO | as good as the best | "
        "tokens | best fixed at these tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for seed in seeds:
        old, new = seed.before, seed.after
        lines.append(
            f"| {seed.seed} | {old.valid:.1%} | {old.reward:.3f} | {new.valid:.1%} | "
            f"{new.reward:.3f} | {new.optimal:.0%} | {new.spends:.0f} | {new.fixed:.3f} |"
        )
    lines += ["", "Behind GRPO, over seeds (bootstrap, 95 %; permutation of signs):", ""]
    rewards = [seed.after.reward for seed in seeds]
    for name, others in (
        ("random", [at_random] * len(seeds)),
        ("its own start", [seed.before.reward for seed in seeds]),
        ("the best fixed allocation", [fixed] * len(seeds)),
        ("the best fixed allocation at equal tokens", [seed.after.fixed for seed in seeds]),
        ("the optimum", [optimum] * len(seeds)),
    ):
        differences = [a - b for a, b in zip(rewards, others, strict=True)]
        found = bootstrap(differences)
        above = sum(difference > 0 for difference in differences)
        lines.append(
            f"- against {name}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], above in "
            f"{above} of {len(seeds)}, p = {sign_flip(differences):.3g}"
        )
    return "\n".join([*lines, "", expectation, ""])
