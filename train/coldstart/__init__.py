"""Cold-start demonstrations: how a problem is solved with a tool, written as ledgers.

Every call is run by the tool it is written for and every output is the tool's own, but for the
share that is altered on purpose (see `Shares`): there the answer follows what was shown, since what
is learnt is to read the tool, not to agree with it.
"""

from .arithmetic import alter, solve_arithmetic
from .base import Demonstration, Reply, Shares, Solver, Step, to_ledger
from .lookups import solve_database, solve_lookup

__all__ = [
    "Demonstration",
    "Reply",
    "Shares",
    "Solver",
    "Step",
    "alter",
    "solve_arithmetic",
    "solve_database",
    "solve_lookup",
    "to_ledger",
]
