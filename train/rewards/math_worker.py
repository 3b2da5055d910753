"""The process in which two answers are compared: a script that reads a line of JSON for each pair
from file descriptor 0, a socket, and answers with another.

It may be made to compute for ever or to eat all memory by what a policy wrote, so it has limits
that the kernel keeps: CPU time for each pair (SIGPROF, not caught, ends the process in the middle
of any computation) and memory. Nothing of the package is imported.

Kinds and their parts are compared here (`kinds` says what they are); what an expression is worth,
math-verify reads and sympy works out. Two exact values are equal or not: no tolerance is applied.
"""

import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

_DIGITS = 60
"""Decimal digits to which two closed forms must agree before they are taken for one value."""
_LARGEST = 1e5
"""Digits of the largest number that is worked out."""
_ROUNDED = 10**5
"""From six digits on a decimal gold answer counts as rounded: what rounds to it is equal, ..."""
_CLOSE = "5e-7"
"""... if it is off by no more than this."""
_NOISE = "1e-12"
"""How far off, of its value, any decimal gold answer may be: 0.1 + 0.2 is 0.30000000000000004."""
_FLOAT = 10**15
"""Digits beyond these are no noise: a float does not hold them."""
_POINTS = ("3/7", "-5/3", "11/4", "-2/9", "17/5", "29/6", "-13/7", "5/11")
"""Values for free symbols at which two expressions are compared."""


def main() -> None:
    """Answer requests until the input ends."""
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, replies = os.fdopen(0, "rb"), os.fdopen(os.dup(0), "w", encoding="utf-8")
    engine = Engine()
    engine.warm()
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        gold, answer = json.loads(line)
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            equal = engine.work_out(gold) if answer is None else engine.equal(gold, answer)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except (Exception, RecursionError, MemoryError):  # boundary: whatever sympy makes of it
            signal.setitimer(signal.ITIMER_PROF, 0)
            equal = False
        print(json.dumps({"equal": bool(equal)}), file=replies, flush=True)


class Engine:
    """Compares values as `kinds.read_answer` gives them, gold first."""

    def __init__(self) -> None:
        import sympy
        from math_verify import LatexExtractionConfig, parse, verify

        logging.disable()
        self._sympy = sympy
        self._verify = verify
        # Units and thousands marks are read before; here they would take letters for units. All
        # arguments have braces: what mends missing ones takes 50 for an argument 5 and a 0.
        config = LatexExtractionConfig()
        plain = replace(
            config.normalization_config, units=False, nits=False, malformed_operators=False
        )
        config = replace(config, normalization_config=plain)

        @lru_cache(maxsize=256)
        def read(latex: str) -> Any:
            # None: math-verify's own limits are signals that only a main thread can use, and they
            # can't stop a computation inside C. Ours can.
            found = parse(f"\\boxed{{{latex}}}", [config], parsing_timeout=None)
            value = next((each for each in found if not isinstance(each, str)), None)
            if isinstance(value, sympy.Expr):
                units = {each: sympy.I for each in value.free_symbols if each.name == "i"}
                value = value.subs(units) if units else value
            return value

        self._read = read

    def warm(self) -> None:
        """Do the work of a first use now, so that it does not count against an expression."""
        for a, b in (("x^2+2x+1", "(x+1)^2"), ("\\sqrt{2}", "\\frac{2}{\\sqrt{2}}"), ("1", "2")):
            self._same(a, b)
        self._region([["1", False, "2", True]], [])

    def work_out(self, value: Any) -> bool:
        """True if each expression of a value can be worked out, to a number if it is one."""
        if isinstance(value, list) and value[:1] == ["expr"]:
            try:
                self._same(value[1], "\\frac{\\pi}{1234567}")
            except OverflowError:
                return False
            return True
        return not isinstance(value, list) or all(map(self.work_out, value))

    # -- kinds ------------------------------------------------------------------------------------

    def equal(self, gold: Any, answer: Any) -> bool:
        """True if two values are equal; those of different kinds are only by a rule given here."""
        if gold == answer:
            return True
        if "choice" in (gold[0], answer[0]):
            return self.equal(
                *(each[2] if each[0] == "choice" else each for each in (gold, answer))
            )
        gold, answer = self._told(gold, answer)
        a, b = gold[0], answer[0]
        if a == "equal" or b == "equal":
            return self._equations(gold, answer)
        if a == b == "expr":
            same_unit = gold[3] is None or answer[3] is None or gold[3] == answer[3]
            return same_unit and self._value(gold, answer)
        if a in ("list", "set") or b in ("list", "set"):
            if a == "region" or b == "region":
                return self._regions(gold, answer)
            return self._members(gold, answer)
        if a == b == "seq":
            return self._in_order(gold[1], answer[1])
        if a == b == "tuple":
            return self._brackets(gold, answer) and self._in_order(gold[3], answer[3])
        if "relation" in (a, b) and "region" in (a, b):
            gold, answer = (self._as_relation(each) for each in (gold, answer))
            a, b = gold[0], answer[0]
        if a == "region" or b == "region":
            return self._regions(gold, answer)
        if a == "matrix" or b == "matrix":
            return self._matrices(gold, answer)
        if a == b == "congruence":
            return self._congruences(gold, answer)
        if a == "ratio" or b == "ratio":
            return self._ratios(gold, answer)
        if a == b == "relation":
            return gold[1] == answer[1] and self._proportional(gold[2:], answer[2:], positive=True)
        if a == b == "raw":
            one, other = self._read(gold[1]), self._read(answer[1])
            return type(one) is type(other) and self._by_engine(one, other)
        return False

    def _told(self, gold: Any, answer: Any) -> Any:
        """Both sides in one form, where one names its values and the other puts them in a tuple:
        `x = 1, y = 2`, `(x, y) = (1, 2)` and, for the usual names, `(1, 2)`.
        """
        both = [gold, answer]
        for at, other in ((0, answer), (1, gold)):
            value = both[at]
            if value[0] != "list" or not all(
                each[0] == "equal" and len(each[1]) == len(each[2]) == 1 for each in value[1]
            ):
                continue
            named = {each[1][0]: each[2][0] for each in value[1]}
            if len(named) < max(2, len(value[1])):
                continue
            if other[0] == "equal" and len(other[1]) == len(other[2]) == 1:
                names, entries = other[1][0].strip("()").split(","), other[2][0]
                if entries[0] == "tuple" and set(names) == set(named):
                    both[at], both[1 - at] = (
                        ["seq", [named[name] for name in names]],
                        ["seq", entries[3]],
                    )
            elif other[0] == "tuple" and sorted(named) == ["x", "y", "z"][: len(named)]:
                both[at] = ["tuple", *other[1:3], [named[name] for name in sorted(named)]]
        return both

    def _congruences(self, gold: Any, answer: Any) -> bool:
        if gold[3] != answer[3] or (gold[1] != answer[1] and None not in (gold[1], answer[1])):
            return False
        whole = all(
            each[2][0] == "expr" and each[2][1].lstrip("-").isdigit() for each in (gold, answer)
        )
        if whole and gold[3].isdigit() and int(gold[3]):
            return int(gold[2][1]) % int(gold[3]) == int(answer[2][1]) % int(gold[3])
        return self.equal(gold[2], answer[2])

    def _ratios(self, gold: Any, answer: Any) -> bool:
        """Proportional terms; a ratio of two is also its quotient."""
        for ratio, other in ((gold, answer), (answer, gold)):
            if other[0] == "expr" and len(ratio[1]) == 2:
                top, bottom = (each[1] for each in ratio[1])
                return self._same(f"\\frac{{{top}}}{{{bottom}}}", other[1])
        if gold[0] != answer[0]:
            return False
        a, b = ([each[1] for each in side[1]] for side in (gold, answer))
        return len(a) == len(b) and all(
            self._same(f"({one})\\cdot({b[0]})", f"({other})\\cdot({a[0]})")
            for one, other in zip(a, b, strict=True)
        )

    def _in_order(self, gold: list[Any], answer: list[Any]) -> bool:
        return len(gold) == len(answer) and all(map(self.equal, gold, answer))

    def _brackets(self, gold: Any, answer: Any) -> bool:
        """Two entries may be an interval, where brackets count; three are a point or a vector."""
        a, b = (value[1:3] for value in (gold, answer))
        plain = (["(", ")"], ["\\langle", "\\rangle"])
        return bool(a == b or (a in plain and b in plain) or len(gold[3]) > 2)

    def _members(self, gold: Any, answer: Any) -> bool:
        """In any order, one for one: solutions, with or without braces around them."""
        a, b = (self._distinct(v) if v[0] in ("list", "set") else [v] for v in (gold, answer))
        names = [[m[1] for m in side if m[0] == "equal" and m[1]] for side in (a, b)]
        if any(
            len({re.sub(r"_\{?\d+\}?", "", str(name)) for name in told}) > 1 for told in names
        ) and not all(names):
            return self._in_order(a, b)  # x = 1, y = 2 and 1, 2
        return self._matched(a, b)

    def _matched(self, gold: list[Any], answer: list[Any]) -> bool:
        if len(gold) != len(answer):
            return False
        left = list(answer)
        for each in gold:
            found = next((i for i, other in enumerate(left) if self.equal(each, other)), None)
            if found is None:
                return False
            del left[found]
        return True

    def _distinct(self, value: Any) -> list[Any]:
        """The members of a list; of a set, each once."""
        flat: list[Any] = []
        for each in value[1]:  # 1 +- 2 is two members
            flat += each[1] if each[0] == "list" else [each]
        if value[0] == "list":
            return flat
        kept: list[Any] = []
        for each in flat:
            if not any(self.equal(other, each) for other in kept):
                kept.append(each)
        return kept

    def _matrices(self, gold: Any, answer: Any) -> bool:
        gold, answer = (
            ["matrix", [row[3] for row in each[3]], ""]  # [[1, 2], [3, 4]]
            if each[0] == "tuple" and all(e[:2] == ["tuple", "["] for e in (each, *each[3]))
            else each
            for each in (gold, answer)
        )
        if gold[0] == answer[0]:
            return len(gold[1]) == len(answer[1]) and all(map(self._in_order, gold[1], answer[1]))
        for matrix, other in ((gold, answer), (answer, gold)):
            column = matrix[0] == "matrix" and all(len(row) == 1 for row in matrix[1])
            if column and other[0] == "tuple" and other[1] in ("(", "\\langle"):
                entries = [row[0] for row in matrix[1]]
                sides = (entries, other[3]) if matrix is gold else (other[3], entries)
                return self._in_order(*sides)
        # 2 times a matrix
        one, other = (self._read(v[2 if v[0] == "matrix" else 1]) if v[0] in ("matrix", "expr")
                      else None for v in (gold, answer))  # fmt: skip
        return None not in (one, other) and self._by_engine(one, other)

    # -- relations --------------------------------------------------------------------------------

    def _equations(self, gold: Any, answer: Any) -> bool:
        if gold[0] == answer[0] == "equal":
            if {"y", "f(x)"} == {*gold[1], *answer[1]} and len(gold[1]) == len(answer[1]) == 1:
                return self._in_order(gold[2], answer[2])
            if gold[1] and gold[1] == answer[1] and len(gold[2]) == len(answer[2]) == 1:
                return self.equal(gold[2][0], answer[2][0])
            if len(gold[3]) == len(answer[3]) == 2:
                return self._proportional(gold[3], answer[3])
            if gold[1] != answer[1]:
                return False
        if answer[0] == "equal":
            if len(answer) > 4:  # about: the rounded value is for a gold answer that is rounded
                rounded = gold[0] == "expr" and gold[2] and gold[2][1] is not None
                return all(self.equal(gold, each) for each in answer[2]) or (
                    bool(rounded) and self.equal(gold, answer[4])
                )
            return all(self.equal(gold, each) for each in answer[2])
        return all(self.equal(each, answer) for each in gold[2])

    def _proportional(self, gold: list[str], answer: list[str], *, positive: bool = False) -> bool:
        """True if one equation (or inequality) is the other, times a constant."""
        sympy = self._sympy
        sides = [self._read(side) for side in (*gold, *answer)]
        if not all(isinstance(side, sympy.Expr) for side in sides):
            return False
        a, b = sides[0] - sides[1], sides[2] - sides[3]
        if not positive:
            a, b = (sympy.fraction(sympy.together(each.doit()))[0] for each in (a, b))
        if not a.free_symbols or a.free_symbols != b.free_symbols:
            return False
        ratio = sympy.simplify(a / b)
        return bool(ratio.is_number and ratio.is_finite and not ratio.is_zero) and (
            not positive or bool(ratio.is_positive)
        )

    def _as_relation(self, value: Any) -> Any:
        """`y < 2 - x`, which is a region of y until the other side has x too."""
        if value[0] != "region" or value[1] is None or len(value[2]) != 1 or value[3]:
            return value
        low, closed_low, high, closed_high = value[2][0]
        if low == "-\\infty":
            return ["relation", "<=" if closed_high else "<", value[1], high]
        if high == "\\infty":
            return ["relation", "<=" if closed_low else "<", low, value[1]]
        return value

    def _regions(self, gold: Any, answer: Any) -> bool:
        """Sets of numbers, however they are written."""
        a, b = gold, answer
        if a[0] == b[0] == "region" and a[1] and b[1] and a[1] != b[1]:
            return False
        one, other = (self._parts(value) for value in (a, b))
        if one is None or other is None:
            return False
        if self._region_text(one) == self._region_text(other):
            return True
        left, right = self._region(*one), self._region(*other)
        if left is None or right is None:
            return len(one[0]) == len(other[0]) and all(map(self._interval, one[0], other[0]))
        return bool(left == right or left.symmetric_difference(right) == self._sympy.S.EmptySet)

    def _region_text(self, parts: Any) -> Any:
        return sorted(map(str, parts[0])), sorted(map(str, parts[1]))

    def _interval(self, gold: Any, answer: Any) -> bool:
        closed = (gold[1], gold[3]) == (answer[1], answer[3])
        return closed and self._same(gold[0], answer[0]) and self._same(gold[2], answer[2])

    def _parts(self, value: Any) -> Any:
        if value[0] == "region":
            return value[2], value[3]
        if value[0] == "tuple" and len(value[3]) == 2 and value[1] in "([" and value[2] in ")]":
            low, high = value[3]
            if low[0] == high[0] == "expr":
                return [[low[1], value[1] == "[", high[1], value[2] == "]"]], []
        if value[0] == "set" and all(each[0] == "expr" for each in value[1]):
            return [[each[1], True, each[1], True] for each in value[1]], []
        return None

    def _region(self, parts: list[Any], holes: list[Any]) -> Any:
        """The set in sympy, or None if an end is not a number."""
        sympy = self._sympy
        region = sympy.S.EmptySet
        for low, closed_low, high, closed_high in parts:
            ends = [self._worth(end) for end in (low, high)]
            if any(end is None or not end.is_extended_real for end in ends):
                return None
            region |= sympy.Interval(*ends, not closed_low, not closed_high)
        points = [self._worth(hole) for hole in holes]
        if any(point is None or not point.is_number for point in points):
            return None
        return region - sympy.FiniteSet(*points)

    def _worth(self, latex: str) -> Any:
        found = self._read(latex)
        if not isinstance(found, self._sympy.Expr):
            return None
        self._check_size(found)
        return found.doit()

    # -- values -----------------------------------------------------------------------------------

    def _value(self, gold: Any, answer: Any) -> bool:
        number, other = gold[2], answer[2]
        if number and number[1] is not None:
            value = Fraction(number[0])
            if other:
                given = Fraction(other[0])
            else:
                found = self._number(self._read(answer[1]))
                if found is None:
                    return False
                given = Fraction(str(found))
            gap, unit = abs(given - value), Fraction(10) ** number[1]
            rounded = abs(value) / unit >= _ROUNDED and gap < min(unit / 2, Fraction(_CLOSE))
            noise = Fraction(_NOISE) if abs(value) / unit < _FLOAT else 0
            return rounded or gap <= abs(value) * noise
        if number and other:
            return Fraction(number[0]) == Fraction(other[0])
        return self._same(gold[1], answer[1])

    def _number(self, expression: Any) -> Any:
        """A real number as a decimal of many digits, or None if it is not one."""
        if not isinstance(expression, self._sympy.Expr) or expression.free_symbols:
            return None
        self._check_size(expression)
        real, imaginary = expression.doit().evalf(_DIGITS).as_real_imag()
        return (
            real
            if real.is_Float and imaginary.is_zero
            else (real.evalf(_DIGITS) if real.is_Rational and imaginary.is_zero else None)
        )

    def _same(self, gold: str, answer: str) -> bool:
        """True if two expressions have the same value."""
        sympy = self._sympy
        a, b = self._read(gold), self._read(answer)
        if a is None or b is None:
            return False
        if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
            return self._by_engine(a, b)
        self._check_size(a)
        self._check_size(b)
        a, b = a.doit(), b.doit()
        if a.has(sympy.zoo, sympy.nan) or b.has(sympy.zoo, sympy.nan):
            return False
        if a == b:
            return True
        if a.is_Rational and b.is_Rational:
            return bool(a == b)
        if {a, b} & {sympy.oo, -sympy.oo}:
            return bool(a == b)
        symbols = sorted(a.free_symbols | b.free_symbols, key=str)
        if not symbols:
            return self._agree(a, b)
        told = [self._at(a, b, symbols, start) for start in range(len(_POINTS))]
        if told.count(True) < 3:  # roots and logarithms of several letters
            told += [self._at(a, b, symbols, start, abs) for start in range(len(_POINTS))]
        if False in told:
            return False
        if told.count(True) >= 3:
            return True
        return bool(sympy.simplify(a - b) == 0)

    def _at(
        self,
        a: Any,
        b: Any,
        symbols: list[Any],
        start: int,
        sign: Callable[[Any], Any] = lambda x: x,
    ) -> bool | None:
        """True if they agree for given values of the symbols, or None if one has no value there.

        Letters stand for real numbers: where a root or a logarithm of a real expression is not
        real, it has no value.
        """
        points = {
            symbol: sign(self._sympy.Rational(_POINTS[(start + 3 * i) % len(_POINTS)])) + i
            for i, symbol in enumerate(symbols)
        }
        one, other = (each.subs(points).doit() for each in (a, b))
        bad = (self._sympy.nan, self._sympy.zoo, self._sympy.oo, -self._sympy.oo)
        if one.has(*bad) or other.has(*bad) or not (one.is_number and other.is_number):
            return None
        if not a.has(self._sympy.I) and not b.has(self._sympy.I):
            sizes = [abs(self._sympy.im(each.evalf(15))) for each in (one, other)]
            if any(size > 1e-9 for size in sizes):
                return None
        return self._agree(one, other)

    def _agree(self, a: Any, b: Any) -> bool:
        """True if two constants are equal, to all digits asked for."""
        if a.is_Rational and b.is_Rational:
            return bool(a == b)
        size = max(abs(a.evalf(15)), abs(b.evalf(15)))
        if not size.is_number:
            return False
        gap = abs((a - b).evalf(_DIGITS, maxn=4 * _DIGITS, chop=False))
        return bool(gap <= size * self._sympy.Float(10, _DIGITS) ** (10 - _DIGITS))

    def _check_size(self, expression: Any) -> None:
        """Raise OverflowError for towers of powers and factorials that would fill the memory.

        What this misses, the limits of the process end.
        """
        sympy = self._sympy
        for part in sympy.preorder_traversal(expression):
            if isinstance(part, (sympy.Pow, sympy.factorial)) and self._digits(part) > _LARGEST:
                raise OverflowError("a number with too many digits")

    def _digits(self, expression: Any) -> float:
        """About how many digits a number has before its point; 0 where that is not known."""
        sympy = self._sympy
        if expression.is_Integer:
            return max(1, int(abs(expression)).bit_length()) * 0.30103
        if isinstance(expression, sympy.factorial):
            digits = self._digits(expression.args[0])
            return float(10 ** min(digits, 300) * digits)
        if isinstance(expression, sympy.Pow):
            base, power = map(self._digits, expression.args)
            if expression.args[1].is_Integer:
                return base * abs(int(expression.args[1]))
            return base * float(10 ** min(power, 300)) if power else base
        if isinstance(expression, (sympy.Mul, sympy.Add, sympy.UnevaluatedExpr)):
            return sum(map(self._digits, expression.args))
        return 0.0

    def _by_engine(self, gold: Any, answer: Any) -> bool:
        """As math-verify compares: matrices as results, functions, sets in words."""
        sympy = self._sympy
        if gold is None or answer is None:
            return False
        kinds: list[Callable[[Any], bool]] = [
            lambda each: isinstance(each, (sympy.MatrixBase, sympy.MatrixExpr))
            or getattr(each, "is_Matrix", False) or bool(each.has(sympy.MatrixBase)),
            lambda each: isinstance(each, sympy.Set),
            lambda each: isinstance(each, sympy.core.relational.Relational),
        ]  # fmt: skip
        if [kind(gold) for kind in kinds] != [kind(answer) for kind in kinds]:
            return False
        return bool(self._verify(gold, answer, timeout_seconds=None))


if __name__ == "__main__":
    main()
