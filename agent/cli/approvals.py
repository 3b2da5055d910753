"""Approval rules and budgets from options, and the question to a person."""

import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.output.defaults import create_output

from ...rollout.budget import Budget, Left
from ...tools.errors import UsageError
from ...tools.files import read_text
from ..approval import Approval
from ..events import ApprovalAsked
from .options import GuardOptions

__all__ = [
    "ask_person",
    "left_line",
    "read_approval",
    "read_budget",
    "read_numbers",
]


def read_approval(options: GuardOptions) -> Approval | None:
    """The rules that the options give. Raises UsageError, and DataError for an unreadable file."""
    if not options.approve:
        return None
    rules = []
    for given in options.approve:
        file = Path(given)
        if given.startswith(("allow", "ask", "deny")) or not file.is_file():
            rules.append(given)
            continue
        rules.append(read_text(file))
    return Approval(*rules)


def read_budget(options: GuardOptions) -> Budget:
    """The budget that the options give. Raises UsageError."""
    return Budget(**read_numbers(options.budget or ""))


def read_numbers(text: str) -> dict[str, Any]:
    """`tokens=5000,calls=20` as what it says. Raises UsageError."""
    kinds = {"tokens": int, "calls": int, "seconds": float}
    numbers: dict[str, Any] = {}
    for part in filter(None, text.replace(",", " ").split()):
        name, _, value = part.partition("=")
        try:
            numbers[name] = kinds[name](value)
            if not numbers[name] >= 0:
                raise ValueError
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"a budget is written tokens=5000,calls=20,seconds=60 (any of them), not {text!r}"
            ) from error
    return numbers


def left_line(left: Left) -> str:
    """The rest of a budget, in words."""
    parts = [
        None if left.tokens is None else f"{left.tokens} tokens",
        None if left.calls is None else f"{left.calls} call{'' if left.calls == 1 else 's'}",
        None if left.seconds is None else f"{left.seconds:.0f} s",
    ]
    said = [part for part in parts if part is not None]
    return f"{', '.join(said)} left" if said else "no budget is set: /budget tokens=5000,calls=20"


async def ask_person(event: ApprovalAsked, *, here: bool) -> None:
    """Ask the person at the terminal; deny the call if there is none (`here` False).

    Raises KeyboardInterrupt if they press Ctrl-C.
    """
    if not here:
        event.deny("it needs a person's approval, and there is nobody to ask.")
        return

    session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))
    # What was typed before the call was to be seen is no answer to it.
    clear_typeahead(session.input)
    with suppress(OSError, ValueError, termios.error):
        termios.tcflush(sys.stdin, termios.TCIFLUSH)
    while True:
        try:
            said = (await session.prompt_async("run this? y, n (why), a(lways): ")).strip()
        except EOFError:
            said = "n"
        word, _, why = said.partition(" ")
        if word.lower() in ("y", "yes"):
            return event.allow()
        if word.lower() in ("a", "always"):
            return event.allow(always=True)
        if word.lower() in ("n", "no"):
            return event.deny(why.strip())
