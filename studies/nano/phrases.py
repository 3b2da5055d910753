"""The thoughts in the nano policy's demonstrations."""

import random
from collections.abc import Sequence

from interlace.rollout.task import Task

__all__ = [
    "GIVE_UP",
    "NO_TOOL",
    "READ",
    "RETRY",
    "TOLD",
    "TRY_AGAIN",
    "choose",
    "look",
    "plan",
]

READ = ("The result is {}.", "The code gives {}.", "The output is {}.")
NO_TOOL = (
    "There is no tool, so I work it out in my head.",
    "I have no tool here, so this is my own estimate.",
)
TOLD = ("The text says so.", "That stands in the question.")
TRY_AGAIN = ("The tool failed. I try once more.", "That was an error of the tool. I try again.")
GIVE_UP = (
    "The tool does not work, so this is my own estimate.",
    "The tool failed again, so I work it out in my head.",
)
RETRY = {
    "name": "That name is not defined. I write the number itself.",
    "bracket": "A bracket is missing. I close it.",
    "print": "Nothing was printed. I print the result.",
    "string": "A text and a number can't be added. I print the number alone.",
}

_PLANS = {
    "product": ("I multiply the two numbers.", "This is a product."),
    "sum": ("I add the two numbers.", "This is a sum."),
    "sum_of_three": ("I add the three numbers.",),
    "difference": ("I subtract the second number from the first.", "This is a difference."),
    "two_differences": ("I subtract both numbers from the first.",),
    "remainder": ("I need the remainder of the division.",),
    "quotient": ("I need the whole part of the quotient.",),
    "exact_quotient": ("I divide the first number by the second.",),
    "square": ("I multiply the number by itself.", "This is a square."),
    "perimeter": ("I add length and width and double the sum.",),
    "percent": ("I multiply by the percentage and divide by 100.",),
    "change": ("I take the cost from the money.",),
    "product_and_more": ("I multiply, then add the rest.",),
    "two_products": ("I add the two products.",),
    "mean": ("I add the numbers and divide by three.",),
    "larger": ("I let Python compare them.",),
    "smaller": ("I let Python compare them.",),
    "small_sum": ("I let Python add them.",),
    "first_of_two": ("I note the number.",),
    "second_of_two": ("I note the number.",),
    "parity": ("I let Python look at the remainder.",),
    "last_digit": ("I let Python take the last digit.",),
    "first_digit": ("I let Python take the first digit.",),
}
_FIRST = {
    "change": "First I need the cost.",
    "product_and_more": "First I multiply.",
    "two_products": "First I need the first product.",
    "mean": "First I add the numbers.",
}
_SECOND = {
    "change": "I take it from the money.",
    "product_and_more": "I add the rest.",
    "two_products": "I add the second product.",
    "mean": "I divide it by three.",
}
_LOOKS = {
    "small_sum": "{a} and {b} make {answer}.",
    "first_of_two": "It is the first number.",
    "second_of_two": "It is the second number.",
    "parity": "I look at the last digit, {last}.",
    "last_digit": "I look at the end of the number.",
    "first_digit": "I look at the beginning of the number.",
}


def choose(rng: random.Random, texts: Sequence[str]) -> str:
    """One of `texts`; the first one is the most likely, so that a greedy policy has a habit."""
    return texts[0] if rng.random() < 0.6 else rng.choice(texts)


def plan(task: Task, rng: random.Random, *, first: bool | None = None) -> str:
    """A thought before a call: on the whole task, or on its `first` or second step."""
    kind = task.data["kind"]
    if first is None:
        return choose(rng, _PLANS[kind])
    return (_FIRST if first else _SECOND)[kind]


def look(task: Task, rng: random.Random) -> str:
    """A thought for a task that needs no tool call."""
    numbers = task.data["numbers"]
    if task.data["kind"] in ("larger", "smaller"):
        return _comparison(str(numbers["a"]), str(numbers["b"]))
    text = _LOOKS[task.data["kind"]].format(**numbers, answer=task.answer, last=numbers["a"] % 10)
    return f"No tool is needed. {text}" if rng.random() < 0.3 else text


def _comparison(a: str, b: str) -> str:
    more = "first" if int(a) > int(b) else "second"
    if len(a) != len(b):
        seen = f"{a} has {len(a)} digits and {b} has {len(b)}"
    else:
        seen = f"{a} begins with {a[0]} and {b} with {b[0]}"
    return f"{seen}: the {more} is larger."
