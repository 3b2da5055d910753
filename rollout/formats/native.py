"""The syntax of a chat template's calls, found by rendering some and reading them back."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from pydantic import BaseModel

from ...tools import Tool, ToolSession
from ...tools.errors import ToolUnavailable
from ..trajectory import FinishReason
from .base import Format
from .schema import tool_schema
from .template import ChatTemplate, TemplateRefusal
from .tool_calls import ToolCalls

__all__ = [
    "ASKED",
    "CALL_ID",
    "NAME",
    "SAID",
    "CallStyle",
    "RenderedCalls",
    "describes",
    "rendered_calls",
]

# Dummy texts: words that no template holds, changes or escapes.
SAID, ASKED, NAME, CALL_ID = "Qzsaid", "Qzasked", "qzname", "qzcallid"
_SECOND = "Qzsecond"


@dataclass(frozen=True, slots=True)
class CallStyle:
    """How a template wants a call as data: `arguments_as_text` as JSON text instead of an object.

    `named_ids`: the id of a call holds its tool's name and number, and stands for them.
    """

    arguments_as_text: bool = False
    named_ids: bool = False

    def call(self, name: str, arguments: Mapping[str, Any], id: str) -> dict[str, Any]:
        """A call as a chat template takes it."""
        given = json.dumps(arguments, ensure_ascii=False) if self.arguments_as_text else arguments
        return {"id": id, "type": "function", "function": {"name": name, "arguments": given}}

    def id(self, name: str, number: int) -> str:
        """The id of a call for which the model wrote none: nine characters, as some templates
        demand, or the tool's name and number.
        """
        return f"functions.{name}:{number}" if self.named_ids else f"{number:09d}"

    def dummy_id(self, number: int) -> str:
        """The id of a call that is rendered to find the layout."""
        return self.id(NAME, number) if self.named_ids else f"{CALL_ID}{number}"


class _Arguments(BaseModel):
    text: str
    count: int = 0
    flag: bool = False
    items: list[int | str] = []


class _Dummy:
    """A tool that is described, and never run."""

    name = NAME
    description = "Says it."
    arguments = _Arguments

    def session(self) -> AbstractAsyncContextManager[ToolSession]:
        """Raise ToolUnavailable."""
        raise ToolUnavailable(f"{self.name!r} is only described")


_TOOL = _Dummy()
_TURNS: tuple[tuple[dict[str, Any], ...], ...] = (
    ({"text": f'{SAID} "é" <b>\n  {{x}}', "count": 3, "flag": True, "items": [1, "two"]},),
    ({"text": f"{SAID}"},),
    ({"text": "2048"},),
    ({"text": '{"a": [1]}'},),
    ({"text": SAID}, {"text": _SECOND}),
)
"""The arguments of the calls of each turn that is rendered: values that a syntax could lose."""


@dataclass(frozen=True, slots=True)
class RenderedCalls:
    """Turns with calls as a template writes them: for each, the calls' arguments and the text."""

    style: CallStyle
    turns: tuple[tuple[tuple[dict[str, Any], ...], str], ...]

    def read_by(self, format: Format) -> bool:
        """True if the format reads each turn's calls as they were given."""
        return isinstance(format, ToolCalls) and all(
            [
                (call.tool, call.arguments)
                for call in format.parse(text, FinishReason.EOS, (_TOOL,)).calls
            ]
            == [(NAME, given) for given in arguments]
            for arguments, text in self.turns
        )

    def format(self, formats: Iterable[Format]) -> Format | None:
        """The format that reads these calls; of several, the one that writes them most alike."""
        reading = [format for format in formats if self.read_by(format)]
        return max(reading, key=self._likeness, default=None)

    def _likeness(self, format: Format) -> int:
        """The length of the longest piece of a written call that the template writes as well."""
        arguments, text = self.turns[1]
        written = format.write_call(NAME, arguments[0])
        match = SequenceMatcher(None, text, written, autojunk=False).find_longest_match()
        return match.size


def rendered_calls(template: ChatTemplate) -> Iterator[RenderedCalls]:
    """The calls that a template writes, in each style that shows them; nothing if it leaves them
    out.
    """
    styles = [CallStyle(text, ids) for ids in (False, True) for text in (False, True)]
    return (found for style in styles if (found := _rendered(template, style)) is not None)


def _rendered(template: ChatTemplate, style: CallStyle) -> RenderedCalls | None:
    turns = []
    for number, arguments in enumerate(_TURNS):
        text = _turn(template, style, arguments)
        if text is None and len(arguments) == 1:
            return None
        if text is None or (len(arguments) > 1 and _SECOND not in text):
            continue  # a template that writes one call a turn
        if not number and not (NAME in text and SAID.lower() in text.lower()):
            return None
        turns.append((arguments, text))
    return RenderedCalls(style, tuple(turns))


def _turn(
    template: ChatTemplate, style: CallStyle, arguments: Sequence[Mapping[str, Any]]
) -> str | None:
    """The text of a turn with these calls; None where the template refuses them."""
    question = [{"role": "user", "content": ASKED}]
    calls = [
        style.call(NAME, each, style.id(NAME, number)) for number, each in enumerate(arguments)
    ]
    schemas = [tool_schema(_TOOL)]
    for content in ("", None):
        said = {"role": "assistant", "content": content, "tool_calls": calls}
        try:
            before = template.render(question, tools=schemas, open_turn=False)
            whole = template.render([*question, said], tools=schemas, open_turn=False)
        except TemplateRefusal:
            continue
        return whole[len(before) :] if whole.startswith(before) else whole.rpartition(ASKED)[2]
    return None


def describes(template: ChatTemplate, tools: Sequence[Tool]) -> bool:
    """True if the template tells the model of the tools it is given."""
    schemas = [tool_schema(tool) for tool in tools]
    messages = [{"role": "user", "content": ASKED}]
    try:
        text = template.render(messages, tools=schemas)
    except TemplateRefusal:
        return False
    try:
        bare = template.render(messages)
    except TemplateRefusal:  # a template for tool use alone
        bare = ""
    return text != bare and all(tool.name in text for tool in tools)
