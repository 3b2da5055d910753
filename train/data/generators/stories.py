"""The stories in which the arithmetic is told: templates, each in several wordings.

Operands stand in the text in the order a, b, c, d wherever their order does not matter.
"""

import random
from dataclasses import dataclass

__all__ = ["PLACES", "STORIES", "Story", "made_up"]


@dataclass(frozen=True, slots=True)
class Story:
    """One template: an operation and texts that tell it, one a line. Held-out ones test alone."""

    name: str
    operation: str
    texts: str
    held_out: bool = False

    @property
    def wordings(self) -> list[str]:
        """The texts, with places for numbers and words in braces."""
        return [line.strip() for line in self.texts.strip().splitlines()]


def _words(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(word.split("/")) for word in text.split())


PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    # The key names the places that one entry fills, so that singular and plural agree.
    "item items": _words(
        "bolt/bolts apple/apples screw/screws pencil/pencils marble/marbles brick/bricks tile/tiles"
        " egg/eggs orange/oranges stamp/stamps coin/coins button/buttons nail/nails candle/candles"
        " bottle/bottles book/books card/cards pear/pears bead/beads cup/cups lemon/lemons"
        " plate/plates sticker/stickers shell/shells battery/batteries ticket/tickets seed/seeds"
        " flower/flowers toy/toys notebook/notebooks spoon/spoons washer/washers chip/chips"
        " lamp/lamps cookie/cookies peach/peaches stone/stones"
    ),
    "container containers": _words(
        "crate/crates box/boxes bag/bags carton/cartons basket/baskets sack/sacks drawer/drawers"
        " shelf/shelves tray/trays jar/jars barrel/barrels truck/trucks container/containers"
        " case/cases tin/tins bucket/buckets cart/carts packet/packets chest/chests wagon/wagons"
        " pallet/pallets"
    ),
    "name": _words(
        "Anna Ben Carla David Ella Felix Grace Henry Ida Jonas Kira Liam Maya Noah Olga Paul Rosa"
        " Sam Tara Uma Victor Wendy Yusuf Zoe"
    ),
    "other": _words("Tom Mary John Lucy Peter Jane Mark Nina"),
    "place": _words(
        "library museum factory school bakery market farm warehouse shop garden theatre workshop"
        " station hotel office"
    ),
    "coins": _words("coins dollars euros cents pounds crowns"),
    "metres": _words("metres meters steps feet miles km"),
}


def made_up(rng: random.Random) -> str:
    """A word that is none, such as `blomet`."""
    sounds = (
        "ba",
        "ble",
        "dri",
        "fa",
        "glo",
        "hu",
        "ji",
        "kra",
        "lo",
        "mi",
        "pe",
        "ro",
        "ste",
        "wo",
    )
    return "".join(rng.choices(sounds, k=rng.randint(1, 2))) + rng.choice("bdgklmnprt")


STORIES: tuple[Story, ...] = (
    Story(
        "containers",
        "product",
        """
        A {container} holds {a} {items}. How many {items} are in {b} {containers}?
        Each {container} holds {a} {items}. How many {items} do {b} {containers} hold?
        There are {a} {containers} with {b} {items} in each. How many {items} are there?
        {name} has {a} {containers}. Each has {b} {items}. How many {items} does {name} have?
        The {place} orders {a} {containers} of {b} {items} each. How many {items} is that?
        One {container} contains {a} {items}. How many {items} are there in {b} {containers}?
        The {place} has {a} {containers} with {b} {items} in every one. How many {items} is that?
        {name} fills {a} {containers} with {b} {items} each. How many {items} does {name} need?
        """,
    ),
    Story(
        "price",
        "product",
        """
        One {item} costs {a} {coins}. How much do {b} {items} cost?
        {name} buys {a} {items} at {b} {coins} each. How much does {name} pay?
        A {item} costs {a} {coins}. What is the price of {b} {items}?
        The {place} sells {a} {items} for {b} {coins} each. How much money does it take in?
        """,
    ),
    Story(
        "rate",
        "product",
        """
        A machine makes {a} {items} an hour. How many {items} does it make in {b} hours?
        {name} walks {a} {metres} every day. How many {metres} does {name} walk in {b} days?
        The {place} needs {a} {items} per week. How many {items} does it need for {b} weeks?
        A book has {a} pages. How many pages do {b} such books have?
        A bus carries {a} people. How many people do {b} buses carry?
        """,
    ),
    Story(
        "area",
        "product",
        """
        A rectangle is {a} {metres} long and {b} {metres} wide. What is its area?
        A field is {a} {metres} long and {b} {metres} wide. What is its area?
        """,
    ),
    Story(
        "bare_product",
        "product",
        """
        What is {a} * {b}?
        What is {a} times {b}?
        Calculate {a} x {b}.
        Multiply {a} by {b}.
        What is the product of {a} and {b}?
        {a} * {b}
        {a}*{b}
        What's {a} * {b}?
        what is {a}*{b}?
        """,
    ),
    Story(
        "together",
        "sum",
        """
        {name} has {a} {items} and {other} has {b} {items}. How many do they have together?
        A {container} holds {a} {items} and another holds {b} {items}. How many is that in total?
        The {place} had {a} {items} and bought {b} more. How many {items} does it have now?
        {name} has {a} {items} and gets {b} more. How many {items} does {name} have now?
        {name} walked {a} {metres} on Monday and {b} on Tuesday. How many {metres} is that?
        One {item} weighs {a} grams and another {b} grams. How much do both weigh together?
        """,
    ),
    Story(
        "bare_sum",
        "sum",
        """
        What is {a} + {b}?
        What is {a} plus {b}?
        Add {a} and {b}.
        What is the sum of {a} and {b}?
        {a} + {b}
        {a}+{b}
        What's {a} + {b}?
        """,
    ),
    Story(
        "three_days",
        "sum_of_three",
        """
        The {place} had {a} visitors on Monday, {b} on Tuesday, {c} on Sunday. How many in all?
        {name} counted {a} {items}, then {b} and then {c}. How many {items} is that in all?
        Three {containers} hold {a}, {b} and {c} {items}. How many {items} are there in total?
        What is {a} + {b} + {c}?
        """,
    ),
    Story(
        "gives_away",
        "difference",
        """
        {name} had {a} {items} and gave {b} to {other}. How many {items} are left?
        The {place} had {a} {items} and sold {b} of them. How many {items} remain?
        There were {a} {items} in a {container}. {name} took out {b}. How many are still in it?
        {name} has {a} {items} and {other} has {b}. How many more does {name} have than {other}?
        One {item} costs {a} {coins} and another {b}. How much more does the first one cost?
        {name} wants {a} {items} and has {b}. How many {items} are missing?
        """,
    ),
    Story(
        "bare_difference",
        "difference",
        """
        What is {a} - {b}?
        What is {a} minus {b}?
        Subtract {b} from {a}.
        What is the difference between {a} and {b}?
        {a} - {b}
        {a}-{b}
        What's {a} - {b}?
        """,
    ),
    Story(
        "gives_away_twice",
        "two_differences",
        """
        {name} had {a} {items}, lost {b} and gave away {c}. How many {items} are left?
        The {place} had {a} {items}. It sold {b} on Monday and {c} on Tuesday. How many remain?
        """,
    ),
    Story(
        "left_over",
        "remainder",
        """
        {name} packs {a} {items} into {containers} of {b}. How many {items} are left over?
        {a} {items} fill as many {containers} of {b} as possible. How many {items} are left over?
        What is the remainder when {a} is divided by {b}?
        """,
    ),
    Story(
        "full_containers",
        "quotient",
        """
        {name} packs {a} {items} into {containers} of {b}. How many full {containers} is that?
        {a} {items} are packed into {containers} of {b} each. How many {containers} can be filled?
        """,
    ),
    Story(
        "shared",
        "exact_quotient",
        """
        {a} {items} are shared equally among {b} people. How many {items} does each get?
        {name} puts {a} {items} equally into {b} {containers}. How many {items} are in each?
        What is {a} divided by {b}?
        What is {a} / {b}?
        """,
    ),
    Story(
        "square_field",
        "square",
        """
        A square field has sides of {a} {metres}. What is its area?
        The floor of the {place} is a square with a side of {a} {metres}. What is its area?
        What is the square of {a}?
        What is {a} squared?
        """,
    ),
    Story(
        "fence",
        "perimeter",
        """
        A rectangle is {a} {metres} long and {b} {metres} wide. What is its perimeter?
        A field is {a} {metres} long and {b} {metres} wide. How long is the fence around it?
        """,
    ),
    Story(
        "share_of",
        "percent",
        """
        What is {a} percent of {b}?
        What is {a}% of {b}?
        """,
    ),
    Story(
        "change",
        "change",
        """
        {name} buys {a} {items} at {b} {coins} each and pays with {c} {coins}. What is the change?
        {name} buys {a} {items} at {b} {coins} each and had {c} {coins}. How many {coins} are left?
        """,
    ),
    Story(
        "loose",
        "product_and_more",
        """
        {name} has {a} {containers} of {b} {items} and {c} loose {items}. How many {items} is that?
        There are {a} {containers} with {b} {items} each and {c} more {items}. How many in all?
        What is {a} * {b} + {c}?
        Multiply {a} by {b} and add {c}.
        """,
    ),
    Story(
        "two_goods",
        "two_products",
        """
        {name} buys {a} {items} at {b} {coins} each and {c} hats at {d} {coins}. What is the cost?
        There are {a} small {containers} of {b} {items} and {c} large ones of {d}. How many {items}?
        """,
    ),
    Story(
        "average",
        "mean",
        """
        The {place} had {a}, {b} and {c} visitors on three days. What is the average per day?
        {name} walked {a}, {b} and {c} {metres} on three days. What is the average per day?
        What is the average of {a}, {b} and {c}?
        """,
    ),
    # Held out: known operations in other stories, and operations that no trained story has.
    Story(
        "theatre_rows",
        "product",
        "A theatre has {a} rows with {b} seats in every row. How many seats does it have?",
        held_out=True,
    ),
    Story(
        "two_rivers",
        "sum",
        "One river is {a} km long and another is {b} km long. How long are both together?",
        held_out=True,
    ),
    Story(
        "mountains",
        "difference",
        "One mountain is {a} feet high and another {b} feet. How much higher is the first one?",
        held_out=True,
    ),
    Story(
        "ribbon",
        "remainder",
        "A ribbon of {a} cm is cut into pieces of {b} cm. How many cm are left over?",
        held_out=True,
    ),
    Story(
        "broken",
        "product_but_some",
        "There are {a} {containers} of {b} {items}, but {c} {items} broke. How many remain?",
        held_out=True,
    ),
    Story(
        "earned_and_spent",
        "gain",
        "{name} sells {a} {items} at {b} {coins} each and buys {c} hats at {d} {coins} each."
        " How many {coins} does {name} gain?",
        held_out=True,
    ),
    # No tool needed.
    Story(
        "two_hands",
        "small_sum",
        """
        {name} has {a} {items} and gets {b} more. How many {items} does {name} have now?
        {name} has {a} {items} and {other} has {b} {items}. How many do they have together?
        What is {a} + {b}?
        """,
    ),
    Story(
        "which_is_larger",
        "larger",
        """
        Which number is larger, {a} or {b}?
        {name} has {a} {items} and {other} has {b}. What is the larger of the two numbers?
        """,
    ),
    Story(
        "which_is_smaller",
        "smaller",
        """
        Which number is smaller, {a} or {b}?
        {name} has {a} {items} and {other} has {b}. What is the smaller of the two numbers?
        """,
    ),
    Story(
        "as_told",
        "first_of_two",
        """
        The {place} has {a} {items} and {b} {containers}. How many {items} does it have?
        {name} has {a} {items} and {other} has {b}. How many {items} does {name} have?
        """,
    ),
    Story(
        "as_told_later",
        "second_of_two",
        """
        The {place} has {a} {items} and {b} {containers}. How many {containers} does it have?
        {name} has {a} {items} and {other} has {b}. How many {items} does {other} have?
        """,
    ),
    Story(
        "odd_or_even",
        "parity",
        """
        Is {a} odd or even?
        {name} has {a} {items}. Is that an odd or an even number?
        """,
    ),
    Story("last_digit", "last_digit", "What is the last digit of {a}?"),
    Story("first_digit", "first_digit", "What is the first digit of {a}?"),
    Story(
        "bridge",
        "second_of_two",
        "A bridge is {a} metres long and {b} metres high. How high is it?",
        held_out=True,
    ),
    Story(
        "higher_floor",
        "larger",
        "{name} lives in house {a} and {other} in house {b}. Which of the two numbers is larger?",
        held_out=True,
    ),
)
