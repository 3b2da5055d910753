# ruff: noqa: E501, RUF001
r"""Kinds of rewrites and of near misses: from a seed, pairs of answers that are equal and that are not.

`answer_pairs.py` holds one row per idea; here each idea is a rule over random values, so that its
share of errors can be measured, ours beside math-verify's alone (`measure`). A rule gives a gold
answer, spellings of its value, and values close to it that are not equal.

    python tests/support/answer_kinds.py                  # all rules
    python tests/support/answer_kinds.py pairs.jsonl      # rows with kind, gold, answer, equal
"""

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeAlias

Rule: TypeAlias = Callable[[random.Random], tuple[str, list[str], list[str]]]


class Pair(NamedTuple):
    """Two answers, and whether they are equal."""

    kind: str
    gold: str
    answer: str
    equal: bool


RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Enter a rule under its name."""
    RULES[function.__name__.replace("_", " ")] = function
    return function


def pairs(each: int, seed: int = 0) -> list[Pair]:
    """`each` golds of every rule, with all their pairs."""
    chance = random.Random(seed)
    made: dict[Pair, None] = {}
    for kind, function in RULES.items():
        for _ in range(each):
            gold, same, others = function(chance)
            for answers, equal in ((same, True), (others, False)):
                made.update((Pair(kind, gold, answer, equal), None) for answer in answers)
    return list(made)


# -- numbers -------------------------------------------------------------------------------------


@rule
def whole_numbers(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.choice([1, -1]) * c.randint(12, 989)
    return (
        str(n),
        [
            f"${n}$", f"{n}.0", f"{n}.", f"x = {n}", rf"\boxed{{{n}}}", rf"\frac{{{3 * n}}}{{3}}",
            str(n).replace("-", "−"), rf"\text{{{n}}}", f"**{n}**", rf"\mathbf{{{n}}}", f"({n})",
            rf"\displaystyle {n}", f" {n} ", rf"\({n}\)", rf"{n}\,", f"n={n}", rf"\sqrt[3]{{{n**3}}}",
        ],
        [
            str(-n), str(n + 1), f"{n}0", f"{n}.5", f"{n}_9", rf"\neq {n}", rf"\geq {n}", f"{n}, {n + 1}",
            rf"{n} \text{{ or }} {n + 2}", f"{n + 1} = {n}", f"{n}x", f"{n}i", rf"\pm {n}", f"{n}/100",
            rf"{n}\pi", f"{n}^2", rf"\sqrt{{{abs(n)}}}", f"{n} + c", f"{str(n)[:-1]},{str(n)[-1]}",
        ],
    )  # fmt: skip


@rule
def thousands(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(1_001, 98_999_999)
    gold = c.choice([str(n), f"{n:,}", f"{n:,}".replace(",", r",\!"), f"{n:,}".replace(",", "{,}")])
    at = c.randint(1, len(str(n)) - 1)
    moved = f"{str(n)[:at]},{str(n)[at:]}"
    return (
        gold,
        [str(n), f"{n:,}", *(f"{n:,}".replace(",", mark) for mark in (r"\,", r",\!", "{,}", r"\ ", " ", "~"))],
        [
            str(n + 1000), str(n)[:-1], f"{n:,}".replace(",", ", "), f"{n:,}".replace(",", "."),
            f"{n:,}"[:-1], *([moved] if moved != f"{n:,}" else []), f"{n:,}".replace(",", ";"),
        ],
    )  # fmt: skip


@rule
def fractions(c: random.Random) -> tuple[str, list[str], list[str]]:
    q = Fraction(c.choice([1, -1]) * c.randint(1, 60), c.choice([3, 7, 9, 11, 13]))
    p, d = q.numerator, q.denominator
    if d == 1:
        q = Fraction(p, 7)
        p, d = q.numerator, q.denominator
    whole, rest = divmod(abs(p), d)
    sign = "-" if p < 0 else ""
    mixed = (
        [rf"{sign}{whole}\frac{{{rest}}}{{{d}}}", f"{sign}{whole} {rest}/{d}"]
        if whole and rest
        else []
    )
    return (
        rf"\frac{{{p}}}{{{d}}}",
        [
            f"{p}/{d}", rf"\dfrac{{{p}}}{{{d}}}", rf"\frac{{{2 * p}}}{{{2 * d}}}", rf"\frac{{{-p}}}{{{-d}}}",
            rf"{sign}\frac{{{abs(p)}}}{{{d}}}", rf"\tfrac{{{p}}}{{{d}}}", rf"\left(\frac{{{p}}}{{{d}}}\right)",
            rf"{p} \div {d}", rf"\frac{{1}}{{{d}}} \cdot {p}", rf"{p} \over {d}", *mixed,
        ],
        [
            f"{float(q):.4f}", rf"\frac{{{d}}}{{{p}}}", rf"\frac{{{p + 1}}}{{{d}}}", rf"\frac{{{p}}}{{{d + 1}}}",
            rf"\frac{{{-p}}}{{{d}}}", f"{p}:{d + 1}", f"({p},{d})", f"{p}{d}", f"{p},{d}", str(p),
        ],
    )  # fmt: skip


@rule
def decimals(c: random.Random) -> tuple[str, list[str], list[str]]:
    places = c.randint(1, 3)
    digits = c.randint(11, 9999) * 10 + c.randint(1, 9)
    q = Fraction(digits, 10**places)
    text = f"{digits / 10**places:.{places}f}"
    return (
        text,
        [f"{text}0", f"+{text}", rf"\frac{{{q.numerator}}}{{{q.denominator}}}", f"{digits}/{10**places}",
         rf"{digits} \times 10^{{-{places}}}", f"{digits}e-{places}", rf"${text}$", rf"\approx {text}"],
        [
            f"-{text}", f"{(digits + 1) / 10**places:.{places}f}", str(digits), text.replace(".", ","),
            f"{text}1", f"{digits / 10**(places + 1):.{places + 1}f}", text.split(".")[0], text.replace(".", ""),
        ],
    )  # fmt: skip


@rule
def repeating_decimals(c: random.Random) -> tuple[str, list[str], list[str]]:
    block = c.randint(12, 98)
    q = Fraction(block, 99)
    return (
        rf"0.\overline{{{block}}}",
        [rf"\frac{{{q.numerator}}}{{{q.denominator}}}", rf"0.\bar{{{block}}}", rf"0.{block}\overline{{{block}}}", f"{block}/99"],
        [f"0.{block}", f"0.{block}{block}", rf"0.0\overline{{{block}}}", f"{block}/100", rf"0.{str(block)[0]}\overline{{{str(block)[1]}}}"],
    )  # fmt: skip


@rule
def scientific(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, k = c.randint(1, 9), c.randint(1, 9), c.randint(4, 12)
    return (
        rf"{a}.{b} \times 10^{{{k}}}",
        [rf"{a}.{b} \cdot 10^{{{k}}}", f"{a}.{b}e{k}", f"{a}.{b}E+{k}", f"{a}{b}" + "0" * (k - 1),
         f"{a}.{b} × 10^{k}", rf"{a}{b} \times 10^{{{k - 1}}}", f"{a}.{b}*10^{k}"],
        [rf"{a}.{b} \times 10^{{{k + 1}}}", rf"{a}.{b} \times 10^{{-{k}}}", rf"{b}.{a}1 \times 10^{{{k}}}", f"{a}.{b}", f"{a}.{b}10{k}"],
    )  # fmt: skip


@rule
def roots(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(2, 9), c.choice([2, 3, 5, 6, 7, 10, 11, 13])
    return (
        rf"{a}\sqrt{{{b}}}",
        [f"{a}√{b}", rf"\sqrt{{{a * a * b}}}", f"{a}sqrt({b})", f"{a}*sqrt({b})", rf"{a} \cdot \sqrt{{{b}}}", rf"\sqrt{{{b}}} \cdot {a}",
         rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}", rf"{a} \cdot {b}^{{1/2}}", rf"{a} \times {b}^{{\frac12}}", rf"{a}\sqrt{{{b}}}\text{{ cm}}"],
        [rf"{a + 1}\sqrt{{{b}}}", rf"{b}\sqrt{{{a}}}" if a != b else str(a), rf"\sqrt{{{a * b}}}" if a > 1 else "0", f"{a * math.sqrt(b):.6f}",
         rf"{a}+\sqrt{{{b}}}", rf"-{a}\sqrt{{{b}}}", rf"{a}\sqrt[3]{{{b}}}", rf"\pm {a}\sqrt{{{b}}}", rf"\sqrt[{a}]{{{b}}}"],
    )  # fmt: skip


@rule
def surds(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, d = c.randint(1, 9), c.choice([2, 3, 5, 7]), c.randint(2, 6)
    return (
        rf"\frac{{{a} + \sqrt{{{b}}}}}{{{d}}}",
        [rf"\frac{{{a}}}{{{d}}} + \frac{{\sqrt{{{b}}}}}{{{d}}}", rf"\frac{{\sqrt{{{b}}} + {a}}}{{{d}}}", f"({a}+sqrt({b}))/{d}",
         rf"\frac{{1}}{{{d}}}\left({a}+\sqrt{{{b}}}\right)", rf"({a}+√{b})/{d}"],
        [rf"\frac{{{a} - \sqrt{{{b}}}}}{{{d}}}", rf"\frac{{{a}}}{{{d}}} + \sqrt{{{b}}}", rf"\frac{{{a} \pm \sqrt{{{b}}}}}{{{d}}}",
         rf"{a} + \frac{{\sqrt{{{b}}}}}{{{d}}}", rf"\frac{{{a} + \sqrt{{{b + 1}}}}}{{{d}}}", rf"\frac{{{a}+{b}}}{{{d}}}"],
    )  # fmt: skip


@rule
def multiples_of_pi(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.choice([1, 3, 5, 7, 11]), c.choice([2, 4, 6, 8, 12])
    q = Fraction(a, b)
    p, d = q.numerator, q.denominator
    return (
        rf"\frac{{{p}\pi}}{{{d}}}",
        [rf"\frac{{{p}}}{{{d}}}\pi", rf"{p}\pi/{d}", f"{p}π/{d}", f"{p}*pi/{d}", rf"\frac{{{p}}}{{{d}}} \cdot \pi", rf"\pi \cdot \frac{{{p}}}{{{d}}}",
         rf"\frac{{{p} \pi}}{{{d}}}\text{{ radians}}", rf"{p / d}\pi" if d in (2, 4, 8) else f"{p}π/{d}"],
        [rf"\frac{{{p}}}{{{d}\pi}}", rf"\frac{{{p}}}{{{d}}}", f"{p * math.pi / d:.5f}", rf"\frac{{{p + d}\pi}}{{{d}}}", rf"{180 * p // d}" + r"\pi", rf"\frac{{{p}\pi^2}}{{{d}}}"],
    )  # fmt: skip


@rule
def powers(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, k = c.randint(2, 9), c.randint(11, 60)
    return (
        f"{a}^{{{k}}}",
        [f"{a}^{k}", f"{a}**{k}", rf"{a}^{{{k - 1}}} \cdot {a}", str(a**k), rf"\frac{{1}}{{{a}^{{-{k}}}}}", rf"({a}^{{{k}}})"],
        [f"{a}^{{{k + 1}}}", f"{a}^{{-{k}}}", f"{a}{k}", f"{k}^{{{a}}}", f"{a} \\cdot {k}", str(a**k + 1), f"{a}_{{{k}}}"],
    )  # fmt: skip


@rule
def logarithms(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.sample([2, 3, 5, 7, 11], 2)
    return (
        rf"\log_{{{a}}} {b}",
        [rf"\log_{a}{{{b}}}", rf"\log_{{{a}}}({b})", rf"\frac{{\ln {b}}}{{\ln {a}}}", rf"\frac{{1}}{{\log_{{{b}}} {a}}}"],
        [rf"\log_{{{b}}} {a}", rf"\ln {b}", rf"\frac{{\ln {a}}}{{\ln {b}}}", rf"\log_{{{a}}} {b * 2}", f"{math.log(b, a):.5f}"],
    )  # fmt: skip


@rule
def factorials_and_binomials(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(6, 14)
    k = c.randint(2, 3)
    return (
        rf"\binom{{{n}}}{{{k}}}",
        [str(math.comb(n, k)), rf"\binom{{{n}}}{{{n - k}}}", rf"\frac{{{n}!}}{{{k}! {n - k}!}}", rf"\dbinom{{{n}}}{{{k}}}", rf"{{{n} \choose {k}}}",
         rf"\frac{{{n}!}}{{{k}! \cdot ({n}-{k})!}}"],
        [rf"\binom{{{n}}}{{{k + 1}}}", rf"\frac{{{n}}}{{{k}}}", f"{n}!", str(math.perm(n, k)), rf"({n}, {k})"],
    )  # fmt: skip


@rule
def complex_numbers(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(1, 9), c.randint(2, 9)
    return (
        f"{a} - {b}i",
        [f"{a}-{b}i", f"-{b}i + {a}", rf"{a} - {b}\mathrm{{i}}", rf"{a} - {b} i", f"({a}-{b}i)", rf"{a} - i{b}", rf"{a}+(-{b})i", f"z = {a}-{b}i"],
        [f"{a} + {b}i", f"-{a} + {b}i", f"{b} - {a}i" if a != b else f"{a}", f"{a} - {b}", f"({a}, -{b})", f"{a} - {b}x", rf"{a} \pm {b}i", f"{a - b}i"],
    )  # fmt: skip


@rule
def trigonometry(c: random.Random) -> tuple[str, list[str], list[str]]:
    gold, same, others = c.choice([
        (r"\frac{\sqrt{3}}{2}", [r"\sin 60^\circ", r"\cos\frac{\pi}{6}", r"\sin(\pi/3)", r"\frac12\sqrt3"], [r"\sin 60", r"\cos 60^\circ", "0.866", r"\frac{\sqrt{3}}{3}"]),
        (r"\sin^2 x", [r"(\sin x)^2", r"1-\cos^2 x", r"\sin(x)^2", r"\frac{1-\cos 2x}{2}"], [r"\sin x^2", r"\sin 2x", r"\cos^2 x", r"2\sin x"]),
        (r"\tan x", [r"\frac{\sin x}{\cos x}", r"\tan(x)", r"\tan{x}"], [r"\cot x", r"\tan y", r"\frac{\cos x}{\sin x}", r"\tan^2 x"]),
        (r"\arctan 2", [r"\tan^{-1} 2", r"\arctan(2)"], [r"\frac{1}{\tan 2}", r"\tan 2", r"\arctan\frac12"]),
    ])  # fmt: skip
    return gold, same, others


# -- units ---------------------------------------------------------------------------------------


@rule
def units(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(3, 480)
    short, long, other = c.choice(
        [("cm", "centimeters", "m"), ("m", "meters", "km"), ("kg", "kilograms", "g"), ("km", "kilometers", "mi"), ("ft", "feet", "in"), ("s", "seconds", "h"), ("mL", "milliliters", "L")]
    )  # fmt: skip
    return (
        rf"{n}\text{{ {short}}}",
        [str(n), rf"{n}\,\mathrm{{{short}}}", rf"{n} \text{{ {long}}}", f"{n} {short}", f"{n} {long}", rf"{n}\mbox{{ {short}}}", rf"{n}~\text{{{short}}}", rf"{n}\ \text{{{short}}}"],
        [rf"{n}\text{{ {other}}}", f"{n} {other}", rf"{n + 1}\text{{ {short}}}", rf"{n}\text{{ {short}}}^2", rf"{n}\%", rf"{n}^\circ", rf"\${n}", str(n * 10)],
    )  # fmt: skip


@rule
def areas_and_speeds(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(3, 480)
    gold, same, others = c.choice([
        (rf"{n}\text{{ cm}}^2", [rf"{n} \text{{ cm}}^{{2}}", rf"{n}\text{{ square centimeters}}", rf"{n}\,\mathrm{{cm}}^2", rf"{n}\text{{ sq cm}}", rf"{n}\text{{ cm}}²", f"{n} cm^2", rf"{n}\text{{ cm}}^2."], [rf"{n}\text{{ cm}}^3", rf"{n}\text{{ cm}}", rf"{n}\text{{ in}}^2", rf"{n}^2\text{{ cm}}"]),
        (rf"{n}\text{{ m}}^3", [rf"{n}\text{{ cubic meters}}", rf"{n} \,\mathrm{{m^3}}", rf"{n}\text{{ m}}^{{3}}"], [rf"{n}\text{{ m}}^2", rf"{n}\text{{ cm}}^3", rf"{n}^3"]),
        (rf"{n}\text{{ km/h}}", [rf"{n}\,\mathrm{{km/h}}", rf"{n} \text{{ km per hour}}", rf"{n}\text{{ kilometers per hour}}", rf"{n}\ \text{{km}}/\text{{h}}"], [rf"{n}\text{{ m/s}}", rf"{n}\text{{ km}}", rf"{n}\text{{ mph}}", rf"{n}\text{{ h}}"]),
    ])  # fmt: skip
    return gold, [str(n), *same], [str(n + 2), *others]


@rule
def percents(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(2, 97)
    return (
        rf"{n}\%",
        [
            str(n),
            f"{n}%",
            rf"{n}\text{{ percent}}",
            rf"{n} \%",
            rf"{n}.0\%",
            f"{n} percent",
            rf"${n}\%$",
        ],
        [
            f"0.{n:02d}",
            rf"\frac{{{n}}}{{100}}",
            rf"{n + 1}\%",
            rf"0.{n:02d}\%",
            rf"{n}^\circ",
            rf"\${n}",
            rf"{n}0\%",
        ],
    )


@rule
def money(c: random.Random) -> tuple[str, list[str], list[str]]:
    n, cents = c.randint(1, 9999), c.randint(10, 99)
    return (
        rf"\${n}.{cents}",
        [f"${n}.{cents}", f"{n}.{cents}", rf"{n}.{cents}\text{{ dollars}}", f"{n}.{cents} dollars", rf"\${n:,}.{cents}", rf"\$ {n}.{cents}", f"{n}.{cents} USD", rf"\text{{\${n}.{cents}}}"],
        [rf"\${n}", rf"\${n}{cents}", rf"€{n}.{cents}", rf"{n}.{cents}\text{{ cents}}", rf"\${n + 1}.{cents}", rf"-\${n}.{cents}", rf"{n}.{cents}\%"],
    )  # fmt: skip


@rule
def angles(c: random.Random) -> tuple[str, list[str], list[str]]:
    n = c.randint(11, 179)
    return (
        rf"{n}^\circ",
        [str(n), f"{n}°", rf"{n}^{{\circ}}", rf"{n}\degree", rf"{n} \text{{ degrees}}", f"{n} degrees", rf"{n}.0^\circ", rf"\angle A = {n}^\circ"],
        [rf"{n + 1}^\circ", rf"{n}\%", rf"{n}\text{{ radians}}", rf"{180 - n}^\circ" if n != 90 else "0", rf"{n}\pi", rf"-{n}^\circ"],
    )  # fmt: skip


# -- several values ------------------------------------------------------------------------------


def distinct(c: random.Random, n: int, most: int = 30) -> list[int]:
    return c.sample([k for k in range(-most, most) if abs(k) > 1], n)


@rule
def solutions(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, d = distinct(c, 3)
    return (
        f"{a}, {b}, {d}",
        [f"{b}, {d}, {a}", f"{a},{b},{d}", rf"{a}, {b} \text{{ and }} {d}", rf"\{{{d}, {a}, {b}\}}", rf"x = {a}, {b}, {d}", f"x = {a}, x = {b}, x = {d}",
         rf"x={a} \text{{ or }} x={b} \text{{ or }} x={d}", f"{a}; {b}; {d}", f"{a}, {b}, and {d}", rf"{a},\ {b},\ {d}", f"{a} and {b} and {d}"],
        [f"{a}, {b}", f"{a}, {b}, {d + 1}", f"{a}, {b}, {d}, {d + 1}", f"{a + b + d}", f"({a}, {b}, {d})", f"{a}, {-b}, {d}", rf"{a} < {b} < {d}", f"{a}, {b}, {b}", str(a)],
    )  # fmt: skip


@rule
def plus_or_minus(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(2, 9), c.choice([2, 3, 5, 7])
    return (
        rf"{a} \pm \sqrt{{{b}}}",
        [rf"{a}+\sqrt{{{b}}}, {a}-\sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}} \text{{ and }} {a}+\sqrt{{{b}}}", f"{a} ± √{b}", rf"x = {a} \pm \sqrt{{{b}}}", rf"\{{{a}-\sqrt{{{b}}}, {a}+\sqrt{{{b}}}\}}"],
        [rf"{a}+\sqrt{{{b}}}", rf"{a}-\sqrt{{{b}}}", rf"\pm {a}\sqrt{{{b}}}", rf"{a}, \sqrt{{{b}}}", rf"-{a} \pm \sqrt{{{b}}}", rf"{a} \pm \sqrt{{{b + 1}}}"],
    )  # fmt: skip


@rule
def sets(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, d = distinct(c, 3)
    return (
        rf"\{{{a}, {b}, {d}\}}",
        [rf"\{{{d}, {b}, {a}\}}", rf"\left\{{{b},{a},{d}\right\}}", f"{d}, {a}, {b}", rf"\lbrace {a}, {b}, {d} \rbrace", rf"\{{{a}, {b}, {d}, {a}\}}", rf"x \in \{{{a}, {b}, {d}\}}"],
        [rf"\{{{a}, {b}\}}", f"({a}, {b}, {d})", rf"\{{{a}, {b}, {d + 1}\}}", rf"\{{{-a}, {b}, {d}\}}", rf"\{{{a}, {b}, {d}, 0\}}", f"[{a}, {b}]"],
    )  # fmt: skip


@rule
def points(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = distinct(c, 2)
    return (
        f"({a}, {b})",
        [f"({a},{b})", rf"\left({a}, {b}\right)", f"(x, y) = ({a}, {b})", rf"({a}.0, \frac{{{2 * b}}}{{2}})", rf"\big({a}, {b}\big)", f"$({a}, {b})$", f"( {a} , {b} )", rf"P({a}, {b})", rf"({a},\ {b})"],
        [f"({b}, {a})", rf"\{{{a}, {b}\}}", f"({a}, {b}]", f"({a}, {b}, 0)", f"({a}, {-b})", f"({a}, {b + 1})", f"{a}, {b}", f"{a + b}", f"[{a}, {b}]"],
    )  # fmt: skip


@rule
def several_points(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b, d, e = distinct(c, 4)
    return (
        f"({a}, {b}), ({d}, {e})",
        [f"({d},{e}), ({a},{b})", rf"({a},{b}) \text{{ and }} ({d},{e})", rf"\{{({a},{b}),({d},{e})\}}", rf"(x,y) = ({a},{b}), ({d},{e})"],
        [f"({a}, {e}), ({d}, {b})", f"({a}, {b})", f"({a}, {b}, {d}, {e})", f"({b}, {a}), ({e}, {d})", f"{a}, {b}, {d}, {e}", rf"({a},{b}) \cup ({d},{e})"],
    )  # fmt: skip


@rule
def vectors(c: random.Random) -> tuple[str, list[str], list[str]]:
    v = distinct(c, 3)

    def column(v: list[int]) -> str:
        return r"\begin{pmatrix} " + r" \\ ".join(map(str, v)) + r" \end{pmatrix}"

    return (
        column(v),
        [column(v).replace(" ", ""), column(v).replace("pmatrix", "bmatrix"), f"({v[0]}, {v[1]}, {v[2]})", rf"\langle {v[0]}, {v[1]}, {v[2]} \rangle",
         r"\left[\begin{array}{c}" + r"\\".join(map(str, v)) + r"\end{array}\right]", column(v).replace(r" \\ ", r" \\[1ex] ")],
        [column(v[::-1]), column([v[0] + 1, v[1] - 1, v[2]]), column(v[:2]), column([v[0] + v[1], v[2]]), str(sum(v)), column([-k for k in v]),
         r"\begin{pmatrix} " + " & ".join(map(str, v)) + r" \end{pmatrix}", rf"\{{{v[0]}, {v[1]}, {v[2]}\}}", column([v[0], v[2], v[1]])],
    )  # fmt: skip


@rule
def matrices(c: random.Random) -> tuple[str, list[str], list[str]]:
    p, q, r, s = distinct(c, 4)

    def matrix(p: int, q: int, r: int, s: int, kind: str = "pmatrix") -> str:
        return rf"\begin{{{kind}}} {p} & {q} \\ {r} & {s} \end{{{kind}}}"

    return (
        matrix(p, q, r, s),
        [matrix(p, q, r, s).replace(" ", ""), matrix(p, q, r, s, "bmatrix"), rf"\frac{{1}}{{2}}\begin{{pmatrix}}{2 * p}&{2 * q}\\{2 * r}&{2 * s}\end{{pmatrix}}", rf"A = {matrix(p, q, r, s)}",
         rf"\left(\begin{{array}}{{cc}}{p}&{q}\\{r}&{s}\end{{array}}\right)"],
        [matrix(p, r, q, s), matrix(r, s, p, q), matrix(p, q, r, s + 1), matrix(q, p, r, s), matrix(p, q, r, s, "vmatrix"), rf"({p}, {q}, {r}, {s})", str(p * s - q * r)],
    )  # fmt: skip


@rule
def named_values(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = distinct(c, 2)
    return (
        f"x = {a}, y = {b}",
        [f"y = {b}, x = {a}", f"x={a},y={b}", rf"x={a} \text{{ and }} y={b}", rf"x = {a},\; y = {b}", f"(x, y) = ({a}, {b})", f"x = {a}; y = {b}"],
        [f"x = {b}, y = {a}", f"x = {a}", f"x = {a}, y = {-b}", f"y = {a}, x = {b}", f"{b}, {a}", f"x = {a}, z = {b}"],
    )  # fmt: skip


# -- sets of numbers -----------------------------------------------------------------------------


@rule
def intervals(c: random.Random) -> tuple[str, list[str], list[str]]:
    a = c.randint(-20, 10)
    b = a + c.randint(2, 20)
    return (
        f"({a}, {b}]",
        [f"({a},{b}]", rf"{a} < x \le {b}", rf"\left({a}, {b}\right]", rf"x \in ({a}, {b}]", f"{a} < x ≤ {b}", rf"{b} \geq x > {a}", rf"\{{x : {a} < x \leq {b}\}}", f"{a}<x<={b}", rf"]{a}, {b}]",
         rf"x > {a} \text{{ and }} x \le {b}"],
        [f"[{a}, {b})", f"({a}, {b})", f"[{a}, {b}]", f"({a - 1}, {b}]", rf"{a} \le x \le {b}", rf"x \le {b}", rf"\{{{a}, {b}\}}", f"({b}, {a}]", rf"x < {a} \text{{ or }} x \ge {b}"],
    )  # fmt: skip


@rule
def rays(c: random.Random) -> tuple[str, list[str], list[str]]:
    a = c.randint(-20, 20)
    return (
        rf"[{a}, \infty)",
        [rf"x \ge {a}", rf"x \geqslant {a}", f"x >= {a}", rf"{a} \leq x", f"[{a}, ∞)", rf"[{a}, +\infty)", rf"\left[{a},\infty\right)", rf"{a} \le x < \infty", rf"x \in [{a}, \infty)"],
        [rf"({a}, \infty)", f"x > {a}", rf"x \le {a}", rf"(-\infty, {a}]", str(a), rf"[{a + 1}, \infty)", rf"[{a}, \infty]" if a < -99 else rf"[{-a - 1}, \infty)"],
    )  # fmt: skip


@rule
def unions(c: random.Random) -> tuple[str, list[str], list[str]]:
    a = c.randint(-20, 10)
    b = a + c.randint(2, 20)
    return (
        rf"(-\infty, {a}) \cup ({b}, \infty)",
        [rf"({b}, \infty) \cup (-\infty, {a})", rf"x < {a} \text{{ or }} x > {b}", rf"(-\infty,{a})\cup({b},+\infty)", rf"x \in (-\infty, {a}) \cup ({b}, \infty)", f"(-∞, {a}) ∪ ({b}, ∞)", rf"x>{b} \text{{ or }} x<{a}"],
        [rf"(-\infty, {a}] \cup ({b}, \infty)", f"({a}, {b})", rf"(-\infty, {a})", rf"(-\infty, {a}) \cap ({b}, \infty)", rf"x < {a} \text{{ and }} x > {b}", rf"(-\infty, {a}) \cup ({b + 1}, \infty)", rf"(-\infty, {b}) \cup ({a}, \infty)"],
    )  # fmt: skip


# -- expressions ---------------------------------------------------------------------------------


@rule
def polynomials(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = (c.randint(1, 9) for _ in range(2))
    return (
        f"x^2 + {a + b}x + {a * b}",
        [f"(x+{a})(x+{b})", f"{a * b} + {a + b}x + x^2", f"x^{{2}}+{a + b}x+{a * b}", f"x**2 + {a + b}*x + {a * b}", rf"\left(x+{b}\right)\left(x+{a}\right)", f"x² + {a + b}x + {a * b}", f"f(x) = x^2 + {a + b}x + {a * b}", f"x(x+{a + b}) + {a * b}", rf"(x+{a})\cdot(x+{b})"],
        [f"x^2 - {a + b}x + {a * b}", f"y^2 + {a + b}y + {a * b}", f"x^2 + {a + b}x + {a * b + 1}", f"x^3 + {a + b}x + {a * b}", f"(x-{a})(x-{b})", f"{a + b}x + {a * b}", f"2x^2 + {2 * (a + b)}x + {2 * a * b}"],
    )  # fmt: skip


@rule
def rational_functions(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.sample(range(1, 10), 2)
    return (
        rf"\frac{{x+{a}}}{{x-{b}}}",
        [f"(x+{a})/(x-{b})", rf"\frac{{{a}+x}}{{-{b}+x}}", rf"1 + \frac{{{a + b}}}{{x-{b}}}", rf"-\frac{{x+{a}}}{{{b}-x}}", rf"\dfrac{{x+{a}}}{{x-{b}}}", rf"\frac{{2x+{2 * a}}}{{2x-{2 * b}}}"],
        [f"x+{a}/x-{b}", rf"\frac{{x-{b}}}{{x+{a}}}", rf"\frac{{x+{a}}}{{x+{b}}}", rf"\frac{{{a}}}{{-{b}}}", rf"\frac{{t+{a}}}{{t-{b}}}"],
    )  # fmt: skip


@rule
def general_terms(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(2, 9), c.randint(1, 9)
    return (
        rf"{a}^n - {b}",
        [f"-{b} + {a}^n", f"{a}^{{n}}-{b}", rf"a_n = {a}^n - {b}", rf"{a} \cdot {a}^{{n-1}} - {b}"],
        [f"{a}^{{n-{b}}}", f"{a}^n + {b}", f"{a}^k - {b}", f"{a}n - {b}", f"n^{a} - {b}"],
    )  # fmt: skip


@rule
def exponentials(c: random.Random) -> tuple[str, list[str], list[str]]:
    a = c.randint(2, 9)
    return (
        rf"{a}e^{{{a}x}} + C",
        [rf"C + {a}e^{{{a}x}}", rf"{a} e^{{{a} x}}+C", rf"{a}\exp({a}x) + C", rf"{a} \cdot e^{{{a}x}} + C"],
        [rf"{a}e^{{{a}x}}", rf"e^{{{a}x}} + C", rf"{a}e^{{{a}}}x + C", rf"{a}e^{{-{a}x}} + C"],
    )  # fmt: skip


@rule
def radicals_of_letters(c: random.Random) -> tuple[str, list[str], list[str]]:
    a = c.randint(2, 9)
    return (
        rf"{a}\sqrt{{x+{a}}}",
        [rf"\sqrt{{{a * a}x+{a**3}}}", rf"{a}(x+{a})^{{1/2}}", f"{a}√(x+{a})", f"{a}sqrt(x+{a})"],
        [rf"{a}\sqrt{{x}}+{a}", rf"\sqrt{{{a}x+{a * a}}}", rf"{a}\sqrt{{x-{a}}}", rf"{a}(x+{a})"],
    )  # fmt: skip


@rule
def lines(c: random.Random) -> tuple[str, list[str], list[str]]:
    m, b = c.randint(2, 9), c.randint(1, 9)
    return (
        f"y = {m}x + {b}",
        [f"y={m}x+{b}", f"{m}x - y + {b} = 0", f"y - {m}x = {b}", f"{m}x + {b} = y", f"2y = {2 * m}x + {2 * b}", f"{m}x + {b}", f"y - {m + b} = {m}(x-1)"],
        [f"y = {m}x - {b}", f"y = {b}x + {m}" if b != m else "y = x", f"x = {m}y + {b}", f"y = -{m}x + {b}", f"y > {m}x + {b}", f"y = {m}x"],
    )  # fmt: skip


@rule
def circles(c: random.Random) -> tuple[str, list[str], list[str]]:
    h, k, r = c.randint(1, 9), c.randint(1, 9), c.randint(2, 9)
    return (
        f"(x-{h})^2 + (y+{k})^2 = {r * r}",
        [f"(y+{k})^2 + (x-{h})^2 = {r * r}", f"(x-{h})^2+(y+{k})^2={r}^2", f"x^2 - {2 * h}x + y^2 + {2 * k}y + {h * h + k * k - r * r} = 0", f"({h}-x)^2+(y+{k})^2-{r * r}=0"],
        [f"(x+{h})^2 + (y-{k})^2 = {r * r}", f"(x-{h})^2 + (y+{k})^2 = {r}", f"(x-{h})^2 - (y+{k})^2 = {r * r}", f"(x-{h})^2 + (y+{k})^2 < {r * r}", str(r * r)],
    )  # fmt: skip


@rule
def inequalities(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(2, 9), c.randint(2, 9)
    return (
        f"{a}x + y < {b}",
        [f"y + {a}x < {b}", f"{b} > {a}x + y", f"y < {b} - {a}x", f"{2 * a}x + 2y < {2 * b}", f"{a}x+y-{b}<0"],
        [f"{a}x + y > {b}", rf"{a}x + y \le {b}", f"{a}x + y = {b}", f"{a}x - y < {b}", f"-{a}x - y < -{b}"],
    )  # fmt: skip


# -- everything else -----------------------------------------------------------------------------


@rule
def bases(c: random.Random) -> tuple[str, list[str], list[str]]:
    base = c.randint(4, 9)
    digits = "".join(str(c.randint(1, base - 1)) for _ in range(3))
    return (
        f"{digits}_{base}",
        [f"{digits}_{{{base}}}", rf"{digits}_{{\text{{{['four', 'five', 'six', 'seven', 'eight', 'nine'][base - 4]}}}}}", f"({digits})_{base}", rf"{digits}_{{(\text{{base }}{base})}}"],
        [f"{digits}_{base + 1}", digits, str(int(digits, base)), f"{digits[::-1]}_{base}" if digits != digits[::-1] else f"1{digits}_{base}", f"{digits}0_{base}"],
    )  # fmt: skip


@rule
def sequences(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(2, 9), c.randint(2, 9)
    return (
        rf"{a}, {a + b}, {a + 2 * b}, \ldots",
        [f"{a}, {a + b}, {a + 2 * b}, ...", rf"{a},{a + b},{a + 2 * b},\dots", f"{a}, {a + b}, {a + 2 * b}, …"],
        [rf"{a + b}, {a}, {a + 2 * b}, \ldots", rf"{a}, {a + b}, \ldots", rf"{a}, {a + b}, {a + 2 * b + 1}, \ldots", f"{a}, {a + b}, {a + 2 * b}"],
    )  # fmt: skip


@rule
def words(c: random.Random) -> tuple[str, list[str], list[str]]:
    word, other = c.sample(
        [
            "east",
            "seat",
            "triangle",
            "integral",
            "odd",
            "even",
            "Tuesday",
            "no solution",
            "isosceles",
            "parabola",
        ],
        2,
    )
    return (
        rf"\text{{{word}}}",
        [word, word.upper(), f"**{word}**", rf"\textbf{{{word}}}", rf"\mathrm{{{word}}}".replace(" ", r"\ "), f"{word}.", f'"{word}"', word.capitalize()],
        [other, word[::-1], word[:-1], f"not {word}", f"{word} or {other}", "0"],
    )  # fmt: skip


@rule
def letters(c: random.Random) -> tuple[str, list[str], list[str]]:
    one, other = c.sample("ABCDE", 2)
    return (
        rf"\text{{({one})}}",
        [
            one,
            f"({one})",
            rf"\text{{{one}}}",
            f"**{one}**",
            rf"\textbf{{({one})}}",
            rf"\mathrm{{{one}}}",
            f"{one}.",
        ],
        [other, f"({other})", f"{one}, {other}", f"{one}{other}", rf"\text{{not {one}}}", "1"],
    )


@rule
def times_of_day(c: random.Random) -> tuple[str, list[str], list[str]]:
    hour, minute = c.randint(1, 11), c.randint(10, 59)
    return (
        rf"{hour}:{minute} \text{{ p.m.}}",
        [
            f"{hour}:{minute} PM",
            f"{hour}:{minute} p.m.",
            rf"{hour}:{minute}\text{{ pm}}",
            f"{hour}:{minute}pm",
        ],
        [
            f"{hour}:{minute} a.m.",
            f"{hour + 1}:{minute} p.m.",
            f"{minute}:{hour} p.m.",
            f"{hour}.{minute}",
            f"{hour}{minute}",
        ],
    )


@rule
def ratios(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.choice([(2, 3), (3, 5), (4, 7), (5, 8), (1, 6)])
    return (
        f"{a}:{b}",
        [f"{a} : {b}", rf"{a}\colon {b}", rf"${a}:{b}$"],
        [f"{b}:{a}", f"{a}:{b + 1}", f"{a},{b}", f"({a},{b})", f"{a}{b}"],
    )


@rule
def congruences(c: random.Random) -> tuple[str, list[str], list[str]]:
    m = c.randint(5, 20)
    r = c.randint(1, m - 1)
    return (
        rf"x \equiv {r} \pmod{{{m}}}",
        [rf"x \equiv {r} \pmod {m}" if m < 10 else rf"x\equiv {r}\pmod{{{m}}}", rf"x\equiv{r} \ (\text{{mod }}{m})", rf"x \equiv {r} \mod {m}", rf"x ≡ {r} (mod {m})"],
        [rf"x \equiv {r} \pmod{{{m + 1}}}", rf"x \equiv {(r + 1) % m} \pmod{{{m}}}", str(r), f"x = {r}", rf"y \equiv {r} \pmod{{{m}}}"],
    )  # fmt: skip


@rule
def chains(c: random.Random) -> tuple[str, list[str], list[str]]:
    a, b = c.randint(3, 20), c.randint(3, 20)
    return (
        str(a * b),
        [rf"{a} \cdot {b} = {a * b}", rf"x = {a} \times {b} = {a * b}", rf"\text{{Area}} = {a * b}", f"{a * b} = {a}*{b}", rf"S_{{{a}}} = {a * b}", rf"f({a}) = {a * b}", rf"\frac{{{a * b * 2}}}{{2}} = {a * b}"],
        [rf"{a} \cdot {b} = {a * b + 1}", f"{a * b} = {a * b + 1}", rf"{a} + {b} = {a * b}" if a + b != a * b else "0", rf"x \ne {a * b}", rf"{a} \cdot {b + 1} = {a * b}"],
    )  # fmt: skip


# -- measuring -----------------------------------------------------------------------------------

BARE = r"""
import json, sys
from math_verify import parse, verify
for line in sys.stdin:
    try:
        gold, answer = (parse("\\boxed{%s}" % text) for text in json.loads(line))
        same = bool(verify(gold, answer))
    except Exception:
        same = False
    print(json.dumps(same), flush=True)
"""


def bare(pairs: Iterable[tuple[str, str]]) -> list[bool]:
    """What math-verify alone says, in a process of its own: it reads what is not to be trusted."""
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    done = subprocess.run(
        [sys.executable, "-c", BARE], input=lines, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def measure(rows: list[Pair], ours: list[bool], theirs: list[bool]) -> Iterator[str]:
    """A line per kind: how many pairs, and the wrong verdicts on either side, ours and bare."""
    from interlace.train.evaluation.intervals import wilson

    yield f"{'kind':28} {'n':>5} {'refused':>8} {'accepted':>8}   bare: refused accepted"
    kinds = list(dict.fromkeys(row.kind for row in rows))
    for kind in [*kinds, ""]:
        count = {(equal, who): 0 for equal in (True, False) for who in ("n", "ours", "bare")}
        for row, mine, other in zip(rows, ours, theirs, strict=True):
            if kind in ("", row.kind):
                count[row.equal, "n"] += 1
                count[row.equal, "ours"] += mine is not row.equal
                count[row.equal, "bare"] += other is not row.equal
        same, near = count[True, "n"], count[False, "n"]
        yield (
            f"{kind or 'all':28} {same + near:5} {count[True, 'ours']:4}/{same:<5}"
            f"{count[False, 'ours']:4}/{near:<5}  {count[True, 'bare']:5}/{same:<5}"
            f"{count[False, 'bare']:5}/{near:<5}"
        )
    for equal, side in ((True, "refused"), (False, "accepted")):
        for who in ("ours", "bare"):
            found = wilson(count[equal, who], count[equal, "n"])
            yield f"{side} by {who}: {100 * found.low:.2f} to {100 * found.high:.2f} %"


def main() -> None:
    """Measure all rules, or the rows of a file; list what is judged wrongly."""
    from interlace.train.rewards import MathVerify, Unscored

    rows = pairs(6, seed=1)
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.strip()]
        rows = [Pair(row["kind"], row["gold"], row["answer"], row["equal"]) for row in found]
    ours = []
    with MathVerify() as ask:
        for row in rows:
            try:
                ours.append(ask.equal(row.gold, row.answer))
            except Unscored as error:
                print("UNSCORED", row, error)
                ours.append(False)
    theirs = bare((row.gold, row.answer) for row in rows)
    for row, mine, other in zip(rows, ours, theirs, strict=True):
        if mine is not row.equal:
            said = "refused " if row.equal else "accepted"
            print(
                f"{said} {'' if other is mine else '(bare is right) '}[{row.kind}] {row.gold!r} / {row.answer!r}"
            )
    print("\n".join(measure(rows, ours, theirs)))


if __name__ == "__main__":
    main()
