"""Which tool calls may be run: rules that allow, ask or deny."""

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Self, TypeAlias

from ..tools.errors import UsageError

__all__ = ["Approval", "Asker", "Rule", "Verdict"]

Asker: TypeAlias = Callable[[str, dict[str, Any]], bool | str | Awaitable[bool | str]]
"""Decides on a call of a tool with arguments: True runs it, False does not, and a text is why not.
One that is no coroutine function runs in a thread, so it may wait for somebody."""


class Verdict(StrEnum):
    """A rule's verdict on a call."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Rule:
    r"""A verdict on the calls of the tools that fit `tool` (`*` and `?` stand for anything), of
    those in whose arguments the regular expression `pattern` is found.

    Example:
        >>> Rule.read(r"deny python \bopen\(")
        Rule(verdict=<Verdict.DENY: 'deny'>, tool='python', pattern='\\bopen\\(')
    """

    verdict: Verdict
    tool: str = "*"
    pattern: str = ""

    @classmethod
    def read(cls, line: str) -> Self:
        """A rule as it is written: `VERDICT [TOOL [PATTERN]]`. Raises UsageError."""
        words = line.split(maxsplit=2)
        try:
            rule = cls(Verdict(words[0]), *words[1:])
            re.compile(rule.pattern)
        except (IndexError, ValueError, re.error) as error:
            raise UsageError(
                f"{line!r} is no rule: write allow, ask or deny, then perhaps a tool, then perhaps "
                "a regular expression for its arguments"
            ) from error
        return rule

    def fits(self, tool: str, arguments: Mapping[str, Any]) -> bool:
        """True if the rule applies to this call."""
        if not fnmatchcase(tool, self.tool):
            return False
        texts = (v if isinstance(v, str) else json.dumps(v) for v in arguments.values())
        return re.search(self.pattern, "\n".join(texts)) is not None


class Approval:
    r"""Rules in order: the first that fits a call decides; where none does, somebody is asked.

    Who is asked is `ask`, or whoever reads the stream (`ApprovalAsked`). Where there is neither, a
    call that needs an approval is not run, and the model is told so.

    Patterns are a convenience and no wall: a model can write the same in many ways. What code may
    do at all is bounded by the sandbox.

    Example:
        >>> rules = Approval("allow sql", r"deny python \bsocket\b", "ask")
        >>> rules.verdict("sql", {"query": "select 1"}).value
        'allow'
        >>> rules.verdict("python", {"code": "import socket"}).value
        'deny'
        >>> rules.verdict("python", {"code": "print(1)"}).value
        'ask'
    """

    def __init__(self, *rules: str | Rule, ask: Asker | None = None) -> None:
        """A text may hold several rules, one a line; `#` begins a comment. Raises UsageError."""
        self.rules: list[Rule] = []
        for rule in rules:
            self.rules += _read(rule) if isinstance(rule, str) else [rule]
        self.ask = ask

    def verdict(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """The verdict of the first rule that fits a call, or ASK if none does."""
        for rule in self.rules:
            if rule.fits(tool, arguments):
                return rule.verdict
        return Verdict.ASK


def _read(text: str) -> list[Rule]:
    lines = (line.strip() for line in text.splitlines())
    return [Rule.read(line) for line in lines if line and not line.startswith("#")]


async def asked(ask: Asker, tool: str, arguments: dict[str, Any]) -> bool | str:
    """The reply of `ask`: a coroutine function is awaited, any other runs in a thread."""
    if inspect.iscoroutinefunction(ask):
        return await ask(tool, arguments)  # type: ignore[no-any-return]
    said = await asyncio.to_thread(ask, tool, arguments)
    return await said if isinstance(said, Awaitable) else said
