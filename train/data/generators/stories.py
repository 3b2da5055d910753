"""The stories in which the arithmetic is told: templates, each in several wordings.

They are in `stories.json`. Operands stand in a text in the order a, b, c, d wherever their order
does not matter.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLACES", "STORIES", "Story", "made_up"]


@dataclass(frozen=True, slots=True)
class Story:
    """One template: an operation, and texts with places in braces. Held-out ones test alone."""

    name: str
    operation: str
    wordings: list[str]
    held_out: bool = False


_DATA = json.loads(Path(__file__).with_name("stories.json").read_text(encoding="utf-8"))
STORIES = tuple(Story(**story) for story in _DATA["stories"])
PLACES: dict[str, list[list[str]]] = {
    names: [entry.split("/") for line in lines for entry in line.split()]
    for names, lines in _DATA["places"].items()
}
"""The words for places in a text. A key names those that one entry fills, so that singular and
plural agree."""


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
