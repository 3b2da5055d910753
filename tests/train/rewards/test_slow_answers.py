"""Answers that would keep a grader busy for ever: each is wrong, and nobody else waits for it."""

import asyncio
import copy
import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest
from support.attempts import TOKENIZER, attempt
from support.fakes import NANO, Echo, answer

from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode
from interlace.train.rewards import REWARDS, Checker, MathVerify

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("needs interlace[train]", allow_module_level=True)

GOLD = "\\sqrt{2}"
TASK = Task("t", "How many?", GOLD, {"checker": "math"})
NEVER_DONE = "\\sum_{n=1}^{100000} n!"


def nested(depth: int) -> str:
    text = "1"
    for n in range(depth):
        text = f"\\frac{{{n}}}{{1+{text}}}"
    return text


def grid(size: int, cell: str, between: tuple[str, str] = ("&", "\\\\")) -> str:
    row = between[0].join(cell.replace("#", str(n)) for n in range(size))
    return f"\\begin{{pmatrix}}{between[1].join([row] * size)}\\end{{pmatrix}}"


REFUSED = {
    "a tower of powers": "9^{9^{9^{9}}}",
    "a quotient of towers": "\\frac{9^{9^{9^9}}}{9^{9^{9^9}}}",
    "a factorial": "(10^9)!",
    "a factorial of factorials": "((9!)!)!",
    "a power of a sum": "(x+y+z+w)^{500}",
    "a matrix": grid(20, "x"),
    "a power of a matrix": grid(8, "\\sqrt{#}") + "^{50}",
    "nested fractions": nested(100),
    "nested roots": "\\sqrt{2+" * 35 + "2" + "}" * 35,
    "fractions that are not closed": "\\frac{" * 300,
    "braces that are not closed": "{" * 1_000_000,
    "commands without arguments": "\\frac" * 200_000,
    "a million digits": "1" * 1_000_000,
    "a million blanks": " " * 1_000_000,
    "a list without end": "1," * 500_000,
    "an exponent of nine digits": "1e999999999",
}
SLOW = {
    "a sum": "\\sum_{n=1}^{10^9} \\frac{1}{n^3}",
    "a sum of factorials": NEVER_DONE,
    "a product": "\\prod_{k=1}^{1000000} k",
    "a binomial": "\\binom{10^9}{5\\cdot10^8}",
    "an integral": "\\int_0^1 x^x e^{x^2} \\sin(x^3) dx",
    "a limit": "\\lim_{x\\to 0} \\frac{\\sin(\\tan x)-\\tan(\\sin x)}{x^7}",
    "a determinant": f"\\det{grid(8, 'a_{#}')}",
    "deep fractions": nested(30),
    "a set": "\\{" + ",".join(f"\\sqrt{{{n}}}" for n in range(150)) + "\\}",
    "a list of equations": ",".join(f"x_{n}=\\sqrt{{{n}}}" for n in range(100)),
    "a union": "\\cup".join(f"(\\sqrt{{{n}}},\\sqrt{{{n + 1}}}]" for n in range(70)),
    "nested functions": "\\sin(\\cos(\\tan(" * 12 + "1" + ")))" * 12,
    "a gamma function": "\\Gamma(10^8)",
    "signs of both kinds": "1" + "\\pm \\sqrt{2}" * 40,
    "characters that are fractions": "½" * 1999,
}


def group(*answers: str) -> list[Episode]:
    """Copies of an episode that really ended, each with an answer of any length."""
    episode = attempt(TASK, answer("1"))
    copies = [copy.deepcopy(episode) for _ in answers]
    for each, text in zip(copies, answers, strict=True):
        each.trajectory.answer = text
    return copies


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker(math=MathVerify(seconds=0.7)) as checker:
        yield checker


def totals(checker: Checker, *answers: str) -> list[float | None]:
    """What a reward gives for each answer, scored in threads as training does."""
    rewards = REWARDS["retool"](checker, TOKENIZER)
    return [each.total for each in rewards.score_all(group(*answers))]


def test_an_answer_that_can_not_be_worked_out_is_wrong(checker: Checker) -> None:
    given = [*REFUSED.values(), NEVER_DONE]
    assert totals(checker, *given, "\\frac{2}{\\sqrt{2}}") == [-1.0] * len(given) + [1.0]


@pytest.mark.slow
@pytest.mark.parametrize("gold", ["3", "\\{1, \\sqrt{2}\\}", "x = 2y"])
def test_no_kind_of_gold_answer_makes_a_slow_one_anything_but_wrong(
    checker: Checker, gold: str
) -> None:
    given = {**REFUSED, **SLOW}
    assert {what: checker.math.equal(gold, text) for what, text in given.items()} == dict.fromkeys(
        given, False
    )
    assert checker.math.equal(gold, gold)


def test_while_a_grader_computes_the_event_loop_serves_others() -> None:
    async def neighbours() -> list[str | None]:
        engine = ScriptedEngine(Tokenizer.load(NANO), lambda request: answer("7"))
        runner = Runner(Policy(engine, FORMATS["retool"], [Echo()]), concurrency=4)
        tasks = [Task(f"n{n}", "How many?") for n in range(8)]
        return [episode.answer async for episode in runner.run(tasks)]

    async def go(math: MathVerify) -> None:
        assert math.equal(GOLD, "\\frac{2}{\\sqrt{2}}")
        (grader,) = math.pool.idle
        with Checker(math=math) as checker:
            rewards = REWARDS["retool"](checker, TOKENIZER)
            (episode,) = await asyncio.to_thread(group, NEVER_DONE)
            scoring = asyncio.create_task(asyncio.to_thread(rewards.score_all, [episode]))
            # All of them, start to end; this grader's own limit would come after a day.
            assert await neighbours() == ["7"] * 8
            assert not scoring.done()
            os.kill(grader.pid, signal.SIGPROF)  # as the kernel does at the limit
            await scoring
            assert episode.rewards["total"] == -1.0

    with MathVerify(seconds=86_400.0) as math:
        asyncio.run(go(math))
