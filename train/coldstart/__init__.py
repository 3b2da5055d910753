"""Cold-start demonstrations: how a problem is solved with a tool, written as ledgers.

Every call is run by the tool it is written for, and every output in a demonstration is the tool's
own.
"""

from .base import Demonstration, Reply, Step, to_ledger

__all__ = ["Demonstration", "Reply", "Step", "to_ledger"]
