# ruff: noqa: RUF001
"""Every spelling that says nothing about an answer's value, and what it is read as: the one table.

Who meets another spelling adds it here, with a row in `tests/support/answer_pairs.py`.
"""

__all__ = ["BARE", "BASES", "CHARACTERS", "FUNCTIONS", "GREEK", "NAMES", "NOTHING", "ONE", "SPACE"]
__all__ += ["CONNECTIVES", "CURRENCIES", "EMPTY", "LEADS", "NO_UNITS", "NUMBERS", "PARTS"]
__all__ += ["PRODUCTS", "SAYINGS", "SCALES", "TEXT", "THIN", "TWO", "UNITS", "UNIT_VECTORS"]
__all__ += ["CHANGES", "ROUNDED", "WITH_ARGUMENT"]

CHARACTERS = {
    **dict.fromkeys("−‐‑‒–—―﹣－", "-"),
    **dict.fromkeys("′’‘´", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("\u2009\u200a\u202f\u2006\u2005\u2004\u2008", "\\,"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f", ""),
    "√": "\\sqrt ", "∛": "\\sqrt[3]", "∞": "\\infty ", "°": "\\degree ", "º": "\\degree ",
    "≤": "\\leq ", "⩽": "\\leq ", "≥": "\\geq ", "⩾": "\\geq ", "≠": "\\neq ",
    "≈": "\\approx ", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ",
    "÷": "\\div ", "±": "\\pm ", "∓": "\\mp ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "∅": "\\emptyset ", "Ø": "\\emptyset ", "⌀": "\\emptyset ", "∖": "\\setminus ",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℚ": "\\mathbb{Q}", "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}", "…": "\\ldots ", "⋯": "\\ldots ", "∠": "\\angle ", "⟨": "\\langle ",
    "⟩": "\\rangle ", "∧": "\\wedge ", "∨": "\\vee ", "→": "\\to ", "⁄": "/", "∕": "/",
    "€": "\\text{€}", "£": "\\text{£}", "¥": "\\text{¥}", "¢": "\\text{¢}", "≡": "\\equiv ",
    "≦": "\\leq ", "≧": "\\geq ", "∶": ":",
}  # fmt: skip
"""Characters, and how they are written in LaTeX."""

NAMES = {
    "\\le": "\\leq", "\\leqslant": "\\leq", "\\ge": "\\geq", "\\geqslant": "\\geq",
    "\\ne": "\\neq", "\\not=": "\\neq", "\\lt": "<", "\\gt": ">", "\\varnothing": "\\emptyset",
    "\\O": "\\emptyset", "\\dots": "\\ldots", "\\cdots": "\\ldots", "\\dotsc": "\\ldots",
    "\\dotsb": "\\ldots", "\\hdots": "\\ldots", "\\infin": "\\infty", "\\lbrace": "\\{",
    "\\rbrace": "\\}", "\\lbrack": "[", "\\rbrack": "]", "\\lparen": "(", "\\rparen": ")",
    "\\vert": "|", "\\lvert": "|", "\\rvert": "|", "\\mid": "|", "\\colon": ":",
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\dbinom": "\\binom",
    "\\tbinom": "\\binom", "\\bar": "\\overline", "\\ast": "\\cdot", "\\lor": "\\vee",
    "\\backslash": "\\setminus", "\\lang": "\\langle", "\\rang": "\\rangle", "\\%": "%",
    "\\rightarrow": "\\to", "\\approxeq": "\\approx", "\\land": "\\wedge",
    "\\#": "#", "\\_": "_", "\\prime": "'", "\\minus": "-",
}  # fmt: skip
"""Commands of one meaning, and the one that is kept."""

THIN = ("\\!", "\\,", "\\thinspace", "\\negthinspace")
SPACE = ("\\:", "\\;", "\\>", "\\ ", "\\quad", "\\qquad", "\\enspace", "\\space", "~")
NOTHING = (
    "\\left", "\\right", "\\middle", "\\big", "\\Big", "\\bigg", "\\Bigg", "\\bigl", "\\bigr",
    "\\Bigl", "\\Bigr", "\\biggl", "\\biggr", "\\Biggl", "\\Biggr", "\\bigm", "\\displaystyle",
    "\\textstyle", "\\scriptstyle", "\\limits", "\\nolimits", "\\mathbf", "\\boldsymbol", "\\bm",
    "\\pmb", "\\mathit", "\\mathsf", "\\mathtt", "\\mathnormal", "\\bf", "\\rm", "\\it", "\\mleft",
    "\\mright", "\\(", "\\)", "\\[", "\\]", "\\underline", "\\ensuremath", "\\smash", "\\strut",
    "\\boxed", "\\fbox", "\\mathstrut", "\\tiny", "\\small", "\\large", "\\Large", "\\centering",
    "\\mathbin", "\\mathrel", "\\mathop",
)  # fmt: skip
"""Sizes, styles and fences: they go, what they are put around stays."""
WITH_ARGUMENT = ("\\hspace", "\\hspace*", "\\vspace", "\\phantom", "\\hphantom", "\\vphantom",
                  "\\color", "\\textcolor", "\\label", "\\tag", "\\kern")  # fmt: skip
"""These go with what is in the braces after them."""
TEXT = ("\\text", "\\mbox", "\\textrm", "\\textbf", "\\textit", "\\textnormal", "\\textsf",
         "\\texttt", "\\hbox", "\\emph", "\\mathrm", "\\operatorname", "\\operatorname*",
         "\\textup")  # fmt: skip
ONE = ("\\overline", "\\mathbb", "\\mathcal", "\\vec", "\\hat", "\\overrightarrow")
TWO = ("\\frac", "\\binom")
"""Commands with one argument, with two."""
UNIT_VECTORS = ("i", "j", "k")
"""Letters whose hats and arrows say nothing."""

_FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp gcd lcm max min det "
    "lim arg deg"
)
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names of functions, with a backslash in LaTeX and often without one."""
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega"
)
GREEK = frozenset("\\" + name for name in _GREEK.split())
"""Letters. Pi is a number."""

BARE = {
    **{name: "\\" + name for name in FUNCTIONS},
    "sqrt": "\\sqrt", "pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "theta": "\\theta",
    "alpha": "\\alpha", "beta": "\\beta", "asin": "\\arcsin", "acos": "\\arccos",
    "atan": "\\arctan",
}  # fmt: skip
"""Words of plain text that are commands."""

_OTHER_NAMES = {
    "°": "degree degrees deg", "%": "percent percentage pct", "$": "dollar dollars usd \\$",
    "€": "euro euros eur", "£": "gbp", "cent": "cents ¢", "mm": "millimeter millimetre",
    "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "g": "gram",
    "mg": "milligram", "kg": "kilogram kgs", "lb": "pound lbs", "oz": "ounce", "l": "liter litre",
    "ml": "milliliter millilitre", "ms": "millisecond", "s": "sec second", "min": "minute",
    "h": "hr hour", "day": "", "week": "", "month": "", "year": "yr", "mi/h": "mph",
    "km/h": "kph kmh", "am": "", "pm": "", "unit": "", "square": "sq", "cubic": "cu",
    "radian": "rad", "th": "st nd rd", "n": "newton", "kn": "kilonewton", "j": "joule",
    "kj": "kilojoule", "w": "watt", "kw": "kilowatt", "pa": "pascal", "kpa": "kilopascal",
    "hz": "hertz", "v": "volt", "a": "ampere amp", "k": "kelvin", "mol": "mole", "c": "celsius",
    "f": "fahrenheit", "ohm": "omega", "cal": "calorie", "kcal": "kilocalorie",
}  # fmt: skip
"""Units, as they are kept, and their other names; an `s` at the end never counts."""
UNITS = {other: name for name, others in _OTHER_NAMES.items() for other in [name, *others.split()]}
"""The name that is kept, by each name."""
PRODUCTS = frozenset(("kn", "kj", "kw", "pa", "ms", "mg"))
"""Units that are read as letters if no blank separates them from the number."""
CURRENCIES = ("$", "€", "£", "¥")
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12,
          "quadrillion": 15, "lakh": 5, "crore": 7}  # fmt: skip
"""Words after a number that multiply it, as powers of ten."""
_NO_UNITS = (
    "or more less fewer than least most not if when for where but maybe approx approximately about "
    "squared cubed dozen half halves third thirds times factorial choose mod modulo base plus minus"
)
NO_UNITS = frozenset(_NO_UNITS.split())
"""Words that are no unit: after a number they change its value, or doubt it."""
_NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven",
    "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBERS = {
    **{name: number for number, name in enumerate(_NUMBERS)},
    **{name: 10 * number for number, name in enumerate(_TENS, 2)},
    **{
        f"{ten}{mark}{name}": 10 * tens + number
        for tens, ten in enumerate(_TENS, 2)
        for number, name in enumerate(_NUMBERS[1:10], 1)
        for mark in "- "
    },
    **{f"{name} hundred": 100 * number for number, name in enumerate(_NUMBERS[1:10], 1)},
}
"""Whole numbers in words."""
PARTS = {
    "half": 2, "halve": 2, "third": 3, "quarter": 4, "fifth": 5, "eighth": 8, "ninth": 9,
    "twelfth": 12,
    **{f"{name}th": number for name, number in NUMBERS.items()
       if number in (4, 6, 7, 10, 11, 13, 14, 15, 16, 17, 18, 19)},
    **{f"{name[:-1]}ieth": 10 * number for number, name in enumerate(_TENS, 2)},
    **{f"{name}th": 10**power for name, power in SCALES.items()},
}  # fmt: skip
"""Parts of one, after a number."""
_COUNT = "|".join([*_NUMBERS[1:], *_TENS, *SCALES, "dozen", r"\d+"])
_PART = "|".join(PARTS)
_UNIT = "|".join(sorted((name for name in UNITS if name.isalpha()), key=len, reverse=True))
_THAN = r" (?:of )?(?:an? |the )?"
CHANGES = (
    # multiples: 5 tens, 5 pairs, 5 point two, 5 and ten
    rf"^(?:tens|dozens?|gross|score|pairs?)$|^(?:tens|dozens|gross) |^(?:{_COUNT})$|"
    rf"\bpoint (?:zero|{_COUNT})\b|^(?:(?:{_UNIT})s? )?and (?:an? )?(?:{_COUNT}|{_PART})\b|"
    rf"^per (?:{'|'.join(SCALES)})\b|"
    # parts: 5 tenths, 1 fifth of it, 5 and a quarter; not: 5 eighth notes
    rf"\b(?:{_PART})s(?![\w-])|(?:^|\b(?:an?|{_COUNT})[ -])(?:{_PART})(?=$| of\b)|"
    rf"\ban? (?:{_PART})\b(?!-)|"
    # signs: 5 below zero, 5 degrees negative
    rf"\bnegative$|\b(?:below|under){_THAN}(?:zero|freezing|par|sea level)\b|"
    # differences: 5 short of a hundred, 5 cm under ten, 90 minutes past noon
    r"^(?:below|under|short|shy|past|over|beyond)\b|"
    rf"\b(?:short|shy|past){_THAN}(?:{_COUNT})\b|"
    rf"^(?:{_UNIT})s? (?:below|under|over|above|beyond){_THAN}(?:{_COUNT})\b|"
    rf"\b(?:past|before|after|to|until|till){_THAN}(?:noon|midnight)\b|\bpast the hour\b"
)
"""Words after a number, in small letters without signs, that change its value: a pattern."""
ROUNDED = rf"\b(?:the|nearest|closest) (?:(?:{_COUNT})[ -])?(?:{_PART})s?\b"
"""The place of a digit, or of one thing in a row, which is no part."""
BASES = {name: number for name, number in NUMBERS.items() if 2 <= number <= 12}
"""Bases of numerals, as they are written in words."""

CONNECTIVES = r"(?:so|hence|thus|therefore)\b,?(?: (?:so|hence|thus|therefore|then)\b,?)*"
LEADS = (
    r"(?:the |our |my )?(?:final |correct )?"
    r"(?:answers?|results?|values?|solutions?|total|choice|option)"
    r"(?: to (?:the|this) (?:problem|question))?(?: is| are|:| =)+(?: exactly| equal to)?|"
    r"exactly\b|precisely\b|definitely\b|certainly\b|simply\b|equals\b|(?:is )?equal to\b|"
    r"(?:it|this|that|which) (?:is|equals)\b|we (?:get|have|obtain|find)\b|the point(?: is)?\b|"
    r"on\b(?= [a-z]+day\b)|(?:in )?the year\b|in\b(?= \d{4}\b)"
)
"""Words that introduce an answer and say nothing about it; both are patterns."""
EMPTY = frozenset(
    ["none", "empty set", "the empty set", "null set", "the null set", "the solution set is empty"]
    + [f"{start}{end}" for start in ("", "there is ", "there are ")
       for end in ("no solution", "no solutions", "no solution exists", "no solutions exist")]
)  # fmt: skip
"""Words for the empty set of solutions."""
SAYINGS = {
    r"(?:the limit |it )?(?:does not exist|doesn't exist|dne)": "does not exist",
    r"(?:there are |it has )?infinitely many(?: solutions)?": "infinitely many",
    r"(?:positive |plus )?infinity": "\\infty",
    r"(?:negative|minus) infinity": "-\\infty",
    r"(?:all|the|any|every) reals?(?: numbers?)?": "\\mathbb{R}",
}
"""Other statements, as patterns: a LaTeX value, or the words that are compared."""
