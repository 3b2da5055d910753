"""The small worlds that questions over databases are about: one table of things each."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["PLACES", "STYLES", "WORLDS", "World"]


@dataclass(frozen=True, slots=True)
class World:
    """A table of things: where each is, of which kind, how much of something, how many of another.

    The phrases go behind "parcels" and "parcels that". `units` are the smaller and the larger unit
    of the amount, `factor` how many of the smaller make one of the larger. A held-out world is
    never trained on.
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


WORLDS = (
    World(
        table="parcel",
        things="parcels",
        place="town",
        at="to {}",
        kind="status",
        kinds=("lost", "waiting", "returned", "damaged"),
        of_kind="are marked {}",
        amount="weight",
        more="weigh more than {}",
        units=("g", "kg"),
        factor=1000,
        number="pieces",
        counted="pieces in the {}",
    ),
    World(
        table="tree",
        things="trees",
        place="park",
        at="in {}",
        kind="species",
        kinds=("oak", "birch", "maple", "willow"),
        of_kind="are listed as {}",
        amount="height",
        more="are taller than {}",
        units=("cm", "m"),
        factor=100,
        number="nests",
        counted="nests in the {}",
    ),
    World(
        table="film",
        things="films",
        place="studio",
        at="by {}",
        kind="genre",
        kinds=("comedy", "western", "horror", "musical"),
        of_kind="are filed under {}",
        amount="length",
        more="run longer than {}",
        units=("s", "min"),
        factor=60,
        number="awards",
        counted="awards of the {}",
    ),
    World(
        table="boat",
        things="boats",
        place="harbour",
        at="from {}",
        kind="type",
        kinds=("ferry", "yacht", "tug", "canoe"),
        of_kind="are registered as {}",
        amount="width",
        more="are wider than {}",
        units=("mm", "m"),
        factor=1000,
        number="seats",
        counted="seats on the {}",
    ),
    World(
        table="tour",
        things="tours",
        place="start",
        at="from {}",
        kind="grade",
        kinds=("easy", "steep", "guided", "closed"),
        of_kind="are described as {}",
        amount="distance",
        more="are longer than {}",
        units=("m", "km"),
        factor=1000,
        number="stops",
        counted="stops on the {}",
    ),
    World(
        table="machine",
        things="machines",
        place="plant",
        at="at {}",
        kind="state",
        kinds=("idle", "broken", "running", "sold"),
        of_kind="are reported as {}",
        amount="runtime",
        more="ran for more than {}",
        units=("min", "h"),
        factor=60,
        number="faults",
        counted="faults of the {}",
    ),
    World(
        table="animal",
        things="animals",
        place="zoo",
        at="in {}",
        kind="class",
        kinds=("bird", "reptile", "mammal", "fish"),
        of_kind="are classed as {}",
        amount="weight",
        more="weigh more than {}",
        units=("g", "kg"),
        factor=1000,
        number="young",
        counted="young of the {}",
        held_out=True,
    ),
    World(
        table="room",
        things="rooms",
        place="hotel",
        at="at {}",
        kind="style",
        kinds=("modern", "rustic", "classic", "plain"),
        of_kind="are advertised as {}",
        amount="price",
        more="cost more than {}",
        units=("cent", "EUR"),
        factor=100,
        number="beds",
        counted="beds in the {}",
        held_out=True,
    ),
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
