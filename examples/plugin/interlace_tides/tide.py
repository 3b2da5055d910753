"""A tool, and the world that it knows: the tide of made-up harbours."""

import math

__all__ = ["HARBOURS", "height", "tide"]

HARBOURS = ("Arno", "Belle", "Cor", "Dunmore")


def height(harbour: str, hour: int) -> float:
    """The height of the tide, metres."""
    phase = HARBOURS.index(harbour)
    return round(3 + 2 * math.sin(2 * math.pi * (hour - phase) / 12.4), 1)


def tide(harbour: str, hour: int) -> str:
    """The height of the tide in a harbour, at an hour of the day."""
    if harbour not in HARBOURS:
        return f"There is no harbour {harbour}: ask about {', '.join(HARBOURS)}."
    return f"{height(harbour, hour)} m"
