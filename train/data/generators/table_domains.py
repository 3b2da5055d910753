"""The domains of questions over databases, each one table of things: `table_domains.json`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLACES", "STYLES", "TABLE_DOMAINS", "TableDomain"]


@dataclass(frozen=True, slots=True)
class TableDomain:
    """A table of things: where each is, of which kind, how much of something, how many of another.

    The phrases go behind "parcels" and "parcels that". `units` are the smaller and the larger unit
    of the amount, `factor` how many of the smaller make one of the larger. A held-out domain
    is never trained on.
    """

    table: str
    things: str
    place: str
    at: str
    kind: str
    kinds: tuple[str, ...]
    of_kind: str
    amount: str
    more: str
    units: tuple[str, str]
    factor: int
    number: str
    counted: str
    held_out: bool = False


TABLE_DOMAINS = tuple(
    TableDomain(**domain | {key: tuple(domain[key]) for key in ("kinds", "units")})
    for domain in json.loads(
        Path(__file__).with_name("table_domains.json").read_text(encoding="utf-8")
    )
)

PLACES = tuple(
    f"{first} {second}"
    for first in ("New", "Old", "Red", "Green", "Long", "Silver", "North", "Little")
    for second in ("Haven", "Hill", "Lake", "Mill", "Bridge", "Forest", "Harbor", "Field")
)
"""As a question spells them; no database does."""

STYLES: dict[str, Callable[[str], str]] = {
    "upper": lambda name: name.upper(),
    "lower": lambda name: name.lower(),
    "dashed": lambda name: name.lower().replace(" ", "-"),
    "snake": lambda name: name.lower().replace(" ", "_"),
    "joined": lambda name: name.replace(" ", ""),
    "turned": lambda name: ", ".join(reversed(name.split(" "))),
    "short": lambda name: ". ".join([name[:2], *name.split(" ")[1:]]),
}
"""How a database may spell a name. Two names never get the same spelling."""
