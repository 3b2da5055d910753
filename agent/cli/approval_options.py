"""Which calls are approved and how much may be used: options, and the person who is asked."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

if TYPE_CHECKING:
    from ...rollout.budget import Budget, Left
    from ..approval import Approval
    from ..events import ApprovalAsked

__all__ = [
    "GuardOptions",
    "ask_person",
    "left_line",
    "read_approval",
    "read_budget",
    "read_numbers",
]


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """Options for which tool calls need approval, and how much may be used in all."""

    layered: ClassVar = True
    approve: Annotated[
        list[str] | None,
        typer.Option(
            help="allow, ask or deny the calls of tools; a rule such as 'deny python open'; or a "
            "file of rules. Again for several: the first that fits decides."
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(help="For all questions together: tokens=5000,calls=20,seconds=60."),
    ] = None


def read_approval(options: GuardOptions) -> "Approval | None":
    """The rules that the options give. Raises UsageError, and DataError for an unreadable file."""
    from ...tools.errors import DataError
    from ..approval import Approval

    if not options.approve:
        return None
    rules = []
    for given in options.approve:
        file = Path(given)
        if given.startswith(("allow", "ask", "deny")) or not file.is_file():
            rules.append(given)
            continue
        try:
            rules.append(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"can't read {file}: {error}") from error
    return Approval(*rules)


def read_budget(options: GuardOptions) -> "Budget":
    """The budget that the options give. Raises UsageError."""
    from ...rollout.budget import Budget

    return Budget(**read_numbers(options.budget or ""))


def read_numbers(text: str) -> dict[str, Any]:
    """`tokens=5000,calls=20` as what it says. Raises UsageError."""
    from ...tools.errors import UsageError

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


def left_line(left: "Left") -> str:
    """The rest of a budget, in words."""
    parts = [
        None if left.tokens is None else f"{left.tokens} tokens",
        None if left.calls is None else f"{left.calls} call{'' if left.calls == 1 else 's'}",
        None if left.seconds is None else f"{left.seconds:.0f} s",
    ]
    said = [part for part in parts if part is not None]
    return f"{', '.join(said)} left" if said else "no budget is set: /budget tokens=5000,calls=20"


async def ask_person(event: "ApprovalAsked", *, here: bool) -> None:
    """Ask whoever sits at the terminal; where nobody does (`here` False), the call is denied.

    Raises KeyboardInterrupt where they press Ctrl-C.
    """
    if not here:
        event.deny("it needs a person's approval, and there is nobody to ask.")
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output.defaults import create_output

    session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))
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
