"""The operations of arithmetic problems: operands, exact answers, and the steps to them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["OPERATIONS", "Draw", "Numbers", "Operation"]

Numbers: TypeAlias = dict[str, int]


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws the numbers of one problem. `level` is the number of digits of the leading one."""

    rng: random.Random
    level: int

    def lead(self) -> int:
        """A number of exactly `level` digits, at least 2."""
        return self.rng.randint(max(2, 10 ** (self.level - 1)), 10**self.level - 1)

    def other(self, most: int = 9) -> int:
        """A number of 1 to `level` digits (at most `most`), each as likely, at least 2."""
        digits = self.rng.randint(1, min(self.level, most))
        return self.rng.randint(max(2, 10 ** (digits - 1)), 10**digits - 1)


def _one(draw: Draw) -> Numbers:
    return {"a": draw.lead()}


def _two(draw: Draw) -> Numbers:
    pair = [draw.lead(), draw.other()]
    draw.rng.shuffle(pair)
    return dict(zip("ab", pair, strict=True))


def _three(draw: Draw) -> Numbers:
    return _two(draw) | {"c": draw.other()}


def _four(draw: Draw) -> Numbers:
    return _three(draw) | {"d": draw.other()}


def _falling(draw: Draw) -> Numbers:
    a, b = draw.lead(), draw.other()
    return {"a": max(a, b) + (a == b), "b": min(a, b)}


def _falling_twice(draw: Draw) -> Numbers:
    a = 2 + draw.lead()
    b = draw.rng.randint(1, a // 2)
    return {"a": a, "b": b, "c": draw.rng.randint(1, a - b)}


def _exact(draw: Draw) -> Numbers:
    """`a`, of about `level` digits, is a multiple of `b`."""
    most = 10**draw.level - 1
    b = draw.rng.randint(2, max(3, most // 10))
    return {"a": b * draw.rng.randint(max(1, most // 10 // b), most // b), "b": b}


def _mean(draw: Draw) -> Numbers:
    n = _three(draw)
    return n | {"c": n["c"] + -sum(n.values()) % 3}


def _payment(draw: Draw) -> Numbers:
    a, b = draw.other(most=3), draw.lead()
    return {"a": a, "b": b, "c": a * b + draw.other()}


def _broken(draw: Draw) -> Numbers:
    n = _two(draw)
    return n | {"c": draw.rng.randint(1, min(n["a"] * n["b"], 10**draw.level) - 1)}


def _gain(draw: Draw) -> Numbers:
    n = _four(draw)
    if n["a"] * n["b"] > n["c"] * n["d"]:
        return n
    return {"a": n["c"], "b": n["d"] + 1, "c": n["a"], "d": n["b"]}


def _percent(draw: Draw) -> Numbers:
    return {"a": draw.rng.randint(2, 99), "b": 100 * draw.lead()}


def _digits(draw: Draw) -> Numbers:
    return {"a": draw.rng.randint(1, 9), "b": draw.rng.randint(1, 9)}


def _apart(draw: Draw) -> Numbers:
    """Two numbers that differ in length or in the first digit: one glance tells the larger."""
    while True:
        n = _two(draw)
        x, y = str(n["a"]), str(n["b"])
        if len(x) != len(y) or x[0] != y[0]:
            return n


def _different(draw: Draw) -> Numbers:
    n = _two(draw)
    return n if n["a"] != n["b"] else n | {"b": n["b"] + 1}


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of problem.

    `numbers` draws the operands, `answer` computes the exact answer from them. `steps` are Python
    expressions for a solver, `{r}` being the result of the step before; the last one gives the
    answer. That the two agree is a test.
    """

    numbers: Callable[[Draw], Numbers]
    answer: Callable[[Numbers], int | str]
    steps: tuple[str, ...]
    needs_tool: bool = True
    known: bool = False
    """A table that one knows by heart: too small to be split into seen and unseen numbers."""


OPERATIONS: dict[str, Operation] = {
    "product": Operation(_two, lambda n: n["a"] * n["b"], ("{a} * {b}",)),
    "sum": Operation(_two, lambda n: n["a"] + n["b"], ("{a} + {b}",)),
    "sum_of_three": Operation(_three, lambda n: sum(n.values()), ("{a} + {b} + {c}",)),
    "difference": Operation(_falling, lambda n: n["a"] - n["b"], ("{a} - {b}",)),
    "two_differences": Operation(
        _falling_twice, lambda n: n["a"] - (n["b"] + n["c"]), ("{a} - {b} - {c}",)
    ),
    "remainder": Operation(_falling, lambda n: n["a"] % n["b"], ("{a} % {b}",)),
    "quotient": Operation(_falling, lambda n: n["a"] // n["b"], ("{a} // {b}",)),
    "exact_quotient": Operation(_exact, lambda n: n["a"] // n["b"], ("{a} // {b}",)),
    "square": Operation(_one, lambda n: n["a"] * n["a"], ("{a} ** 2",)),
    "perimeter": Operation(_two, lambda n: 2 * n["a"] + 2 * n["b"], ("2 * ({a} + {b})",)),
    "percent": Operation(_percent, lambda n: n["a"] * (n["b"] // 100), ("{a} * {b} // 100",)),
    "change": Operation(_payment, lambda n: n["c"] - n["a"] * n["b"], ("{a} * {b}", "{c} - {r}")),
    "product_and_more": Operation(
        _three, lambda n: n["a"] * n["b"] + n["c"], ("{a} * {b}", "{r} + {c}")
    ),
    "two_products": Operation(
        _four, lambda n: n["a"] * n["b"] + n["c"] * n["d"], ("{a} * {b}", "{r} + {c} * {d}")
    ),
    "mean": Operation(_mean, lambda n: sum(n.values()) // 3, ("{a} + {b} + {c}", "{r} // 3")),
    "product_but_some": Operation(
        _broken, lambda n: n["a"] * n["b"] - n["c"], ("{a} * {b}", "{r} - {c}")
    ),
    "gain": Operation(
        _gain, lambda n: n["a"] * n["b"] - n["c"] * n["d"], ("{a} * {b}", "{r} - {c} * {d}")
    ),
    # One look at the text is enough for these.
    "small_sum": Operation(_digits, lambda n: n["a"] + n["b"], ("{a} + {b}",), False, known=True),
    "larger": Operation(_apart, lambda n: max(n.values()), ("max({a}, {b})",), False),
    "smaller": Operation(_apart, lambda n: min(n.values()), ("min({a}, {b})",), False),
    "first_of_two": Operation(_different, lambda n: n["a"], ("{a}",), False),
    "second_of_two": Operation(_different, lambda n: n["b"], ("{b}",), False),
    "parity": Operation(
        _one,
        lambda n: ("even", "odd")[n["a"] % 2],
        ("'odd' if {a} % 2 else 'even'",),
        False,
    ),
    "last_digit": Operation(_one, lambda n: n["a"] % 10, ("{a} % 10",), False),
    "first_digit": Operation(_one, lambda n: int(str(n["a"])[0]), ("str({a})[0]",), False),
}
