"""The protocols of a process that runs a session's cells, whichever its backend."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..base import ErrorKind
from .output import CellOutput
from .walls.walls import Walls

__all__ = ["CellError", "Died", "Interpreter", "Monitored"]


@dataclass(frozen=True, slots=True)
class CellError:
    """The error a cell raised: the exception's class, and the text of its traceback."""

    name: str
    text: str


class Died(Exception):
    """The interpreter's process ended; the message says how, as in "it {message}"."""

    def __init__(self, how: str, kind: ErrorKind = ErrorKind.DIED) -> None:
        super().__init__(how)
        self.kind = kind


class Interpreter(Protocol):
    """A running interpreter with the state of one session."""

    @property
    def alive(self) -> bool:
        """True while the process runs; once False, it is unusable."""
        ...

    def ending(self) -> str:
        """How the process ended, in words."""
        ...

    async def execute(self, code: str, output: CellOutput) -> CellError | None:
        """Run a cell to its end, its output collected in `output`; the error it raised, if any.

        Raises `Died`. A cancelled caller leaves the cell running: `interrupt` or `close`.
        """
        ...

    async def interrupt(self, seconds: float) -> bool:
        """Interrupt the cell that runs; whether the process was idle within `seconds`."""
        ...

    async def read_file(self, path: str) -> bytes:
        """The content of a file in the working directory. Raises `OSError`."""
        ...

    async def write_file(self, path: str, data: bytes) -> None:
        """Make or replace a file in the working directory. Raises `OSError`."""
        ...

    def close(self) -> None:
        """End the process and all that it started; the session's files stay. Once or more."""
        ...


class Monitored(Protocol):
    """An interpreter as the watch over its limits sees it."""

    @property
    def pid(self) -> int:
        """The process's number; 0 before it is known."""
        ...

    @property
    def roots(self) -> list[int]:
        """The processes whose trees hold all that runs in it, its own first."""
        ...

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        ...

    @property
    def busy(self) -> bool:
        """True while a cell runs."""
        ...

    @property
    def requests(self) -> int:
        """How many cells it was given so far, and the like."""
        ...

    def halt(self) -> bool:
        """Stop it and all that it started until the next request; True once nothing of it runs."""
        ...

    @property
    def walls(self) -> Walls:
        """The walls around it, with the limits."""
        ...

    @property
    def session_dir(self) -> Path | None:
        """The folder of its files, or None if the watch need not count them."""
        ...

    def end(self, how: str, kind: ErrorKind = ErrorKind.DIED) -> None:
        """Kill the process, with all that it started, for the reason that `how` states."""
        ...
