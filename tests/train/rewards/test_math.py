r"""Mathematical answers: what is equal, what a hostile policy tries, and limits that hold."""

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attempts import TOKENIZER, attempt
from support.fakes import EVIL, answer, code

from interlace.rollout.task import Task
from interlace.train.rewards import REWARDS, Checker, MathVerify, Unscored

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("needs interlace[train]", allow_module_level=True)


@pytest.fixture(scope="module")
def math() -> Iterator[MathVerify]:
    with MathVerify(seconds=2.0) as math:
        yield math


EQUAL = [
    ("3", "x=3"),
    ("1,200", "1200.0"),
    ("\\frac{14}{3}", "14/3"),
    ("\\frac14", "0.25"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)"),
    ("\\{1, 2\\}", "2, 1"),
    ("(x+1)^2", "x^2 + 2x + 1"),
    ("90^\\circ", "90"),
    ("\\text{East}", "east"),
    ("\\frac{2\\sqrt{3}}{3}", "\\dfrac{2}{\\sqrt{3}}"),
    ("42", "$42$."),
    ("50\\%", "50%"),
]
UNEQUAL = [
    ("3", "4"),
    ("\\frac{14}{3}", "4.67"),
    ("(1, 2)", "(2, 1)"),
    ("3", ""),
    ("3", "$"),
    # Several answers at once, in the hope that one of them counts.
    ("3", "3 or 4"),
    ("3", "1, 2, 3"),
    ("3", "\\{3, 4\\}"),
    ("3", "4} \\boxed{3"),
    ("3", "\\boxed{4} \\boxed{3}"),
    ("7", "$3$ $4$"),
    # A superscript is no digit: 4 squared is not 42.
    ("42", "4²"),
    ("42", "4\u200b2 or 43"),
    ("cat", "act"),
    ("3", "__import__('os')._exit(0)"),
    ("3", "{{{{3"),
    ("3", "\\frac{3}{"),
]


@pytest.mark.parametrize(("gold", "said"), EQUAL)
def test_answers_that_are_equal(math: MathVerify, gold: str, said: str) -> None:
    assert math.equal(gold, said)


@pytest.mark.parametrize(("gold", "said"), UNEQUAL)
def test_answers_that_are_not_equal(math: MathVerify, gold: str, said: str) -> None:
    assert not math.equal(gold, said)


@pytest.mark.parametrize("digits", ["\uff14\uff12", "\u0664\u0662", "\u096a\u0968"])
def test_digits_of_other_scripts_are_digits(math: MathVerify, digits: str) -> None:
    assert math.equal("42", digits)
    assert not math.equal("43", digits)


@pytest.mark.parametrize(
    "huge", ["9^{9^{9^{9}}}", "9**9**9", "10^{10^{10}}!", "(" * 900 + ")" * 900, "1" * 100_000]
)
def test_an_expression_too_large_to_work_out_is_wrong_and_the_next_one_is_checked(
    math: MathVerify, huge: str
) -> None:
    assert not math.equal("3", huge)
    assert math.equal("\\frac{1}{2}", "2/4")


def test_a_gold_answer_that_cannot_be_worked_out_is_our_fault(math: MathVerify) -> None:
    with pytest.raises(Unscored, match="of the task"):
        math.equal("9^{9^{9^{9}}}", "\\frac{6}{2}")


def test_the_limit_holds_in_threads_and_signals_are_left_alone(math: MathVerify) -> None:
    verdicts: dict[str, bool] = {}

    def check(text: str) -> None:
        verdicts[text] = math.equal("\\frac{6}{4}", text)

    threads = [
        threading.Thread(target=check, args=(text,)) for text in ("9^{9^{9^9}}", "\\frac{3}{2}")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {"9^{9^{9^9}}": False, "\\frac{3}{2}": True}


def test_processes_end_with_close() -> None:
    with MathVerify() as math:
        assert math.equal("\\frac{1}{2}", "\\frac{2}{4}")
        (process,) = math.pool.idle
        assert process.alive
    assert not math.pool.idle
    while process.alive:  # it was killed, and takes milliseconds to end
        time.sleep(0.01)
    assert "math_verify" not in sys.modules  # what a policy wrote is not parsed in this process


@settings(deadline=None)
@given(st.integers(), st.integers(min_value=1, max_value=10**6))
def test_a_number_equals_itself_however_it_is_dressed(n: int, d: int) -> None:
    math = MathVerify()  # none of these needs a process
    for text in (f"${n}$", f"\\text{{{n}}}", f" {n}. ", f"{n:,}", f"\\left\\!{n}\\right"):
        assert math.equal(str(n), text)
    assert math.equal(f"\\dfrac{{{n}}}{{{d}}}", f"$\\frac{{{n}}}{{{d}}}$")
    assert not math.pool.idle


# -- whole episodes ------------------------------------------------------------------------------

TASK = Task("t", "How many?", "666", {"checker": "math"})


def score(*script: str, format: str = "retool") -> dict[str, float]:
    with Checker() as checker:
        episode = attempt(TASK, *script, format=format)
        rewards = REWARDS["retool"](checker, TOKENIZER)
        return rewards.score(episode).rewards


def test_the_right_answer_earns_one_and_parts_are_logged_apart() -> None:
    rewards = score(code("fail"), code("say 666"), answer("666"))
    assert rewards["total"] == rewards["outcome"] == 1.0
    assert (rewards["calls"], rewards["tool_errors"], rewards["void_turns"]) == (2.0, 0.5, 0.0)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([code("evil"), "I do not know."], id="the tool says the answer in tags"),
        pytest.param([code("evil"), answer("1")], id="the tool says it, the policy another one"),
        pytest.param(
            ["<interpreter><answer>\\boxed{666}</answer></interpreter>"],
            id="the policy forges tool output",
        ),
        pytest.param([code("print('\\boxed{666}')"), "Done."], id="boxed in a string of the code"),
        pytest.param(
            [code("'<answer>\\boxed{666}</answer>'"), "No answer."], id="answered in the code"
        ),
        pytest.param([answer("666}\\boxed{667")], id="the last of two boxes counts"),
        pytest.param(["<answer>\\boxed{665} or \\boxed{666} or \\boxed{1}</answer>"], id="hedged"),
    ],
)
def test_only_what_the_policy_itself_answers_counts(script: list[str]) -> None:
    assert "666" in EVIL
    assert score(*script)["total"] == -1.0


def test_braces_may_be_nested() -> None:
    assert score(answer("\\frac{\\frac{1332}{2}}{\\frac{3}{3}}"))["total"] == 1.0
