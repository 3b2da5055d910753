"""Text a chat template writes between an assistant's message and the next one.

Found once per template, by rendering dummy conversations and looking at the text around the
dummy texts in them; a conversation that was sampled is never rendered again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..tokenizer import Tokenizer
from .base import Format
from .native import ASKED, NAME, SAID, CallStyle, rendered_calls
from .template import ChatTemplate, TemplateRefusal

__all__ = ["Layout", "TemplateFrame", "TemplateLayouts", "tagged_result"]

Dict: TypeAlias = dict[str, Any]
ContentTransform: TypeAlias = Callable[[str], str]
MessageShape: TypeAlias = Callable[[Sequence[str]], list[Dict]]

# They stand for the id of the call whose result ends, and of the one whose result begins.
_PREVIOUS, _NEXT = "\0previous\0", "\0next\0"
GIVEN = ("Qzgiven", "Qzother", "Qzthird")


@dataclass(frozen=True, slots=True)
class TemplateFrame:
    """The text around one or several given messages that answer an assistant's.

    `end` closes the assistant's message ("" where the template writes nothing), then comes `open`,
    a content, any number of (`between`, a content), and `close`, with what opens the assistant's
    next message. `prepare` is what the template does to a content (trim it, escape it as JSON);
    `role` is the role that the messages have, and `style` how calls were given before them, where
    they were given as data.
    """

    end: str
    open: str
    between: str
    close: str
    prepare: ContentTransform
    role: str
    style: CallStyle | None = None

    def before(self, number: int, name: str, ids: Sequence[str]) -> str:
        """The text before the content of that number, naming the tool and its call where the
        template does. `ids` are those of all calls.
        """
        return self._named(self.between if number else self.open, number, ids).replace(NAME, name)

    def behind(self, ids: Sequence[str]) -> str:
        """The text after the last content."""
        return self._named(self.close, len(ids), ids)

    def _named(self, text: str, number: int, ids: Sequence[str]) -> str:
        """A text before the content of that number, with the ids of the calls around it."""
        for mark, at in ((_PREVIOUS, number - 1), (_NEXT, number)):
            text = text.replace(mark, ids[at] if 0 <= at < len(ids) else "")
        return text


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


_TRANSFORMS: tuple[ContentTransform, ...] = (
    str,
    str.strip,
    _as_json,
    lambda text: json.dumps(text)[1:-1],
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How one kind of conversation is laid out by a template.

    `question` is around a later question, None where earlier messages are then rewritten;
    `results` around tool results: None if no layout is sound, or it was not requested.
    """

    strips_thinking: bool
    question: TemplateFrame | None
    results: TemplateFrame | None


class TemplateLayouts:
    """A tokenizer's chat template and what was found out about it, for encoders to share.

    A layout depends on whether there is a system message and whether the template is given tools,
    not on what they say: policies that differ in their tools alone find it here.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises TokenizerError where the chat template is broken."""
        self.template = ChatTemplate(tokenizer)
        self.takes_system = _takes_system(self.template)
        self._ends = [tokenizer.token(id) for id in sorted(tokenizer.eos_ids)]
        self._styles: dict[str, CallStyle | None] = {}
        self._found: dict[tuple[int, bool, bool, CallStyle | None], Layout] = {}

    def style(self, format: Format) -> CallStyle | None:
        """The style in which the template is given calls that the format reads in its text; None
        where it writes others.
        """
        if format.name not in self._styles:
            read = (calls for calls in rendered_calls(self.template) if calls.read_by(format))
            found = next(read, None)
            self._styles[format.name] = None if found is None else found.style
        return self._styles[format.name]

    def find(
        self,
        opening: Sequence[Dict],
        tools: Sequence[Dict],
        *,
        results: bool,
        style: CallStyle | None = None,
    ) -> Layout:
        """The layout after the messages `opening`, the last one the first question, with the
        schemas `tools` given to the template; with `results`, of tool results too, after calls in
        a style that the template knows.
        """
        kind = (len(opening), bool(tools), results, style)
        if kind not in self._found:
            probe = _Probe(self.template, opening, self._ends, tools, style)
            strips = not _keeps_thinking(self.template, opening)
            question = None if strips else probe.question()
            frame = probe.results() if results else None
            if results and frame is None and style is not None:
                # Some templates show the system message beside the last question alone: where
                # results come, they have moved on. The ledger keeps it where it was.
                frame = replace(probe, opening=opening[-1:]).results()
            self._found[kind] = Layout(strips, question, frame)
        return self._found[kind]


@dataclass(frozen=True, slots=True)
class _Probe:
    """The inputs of the search for one template's frames.

    `opening` are the messages up to the first question, `ends` the texts of the end-of-sequence
    tokens, `tools` the schemas the template is given, `style` that of the calls it writes as the
    format reads them.
    """

    template: ChatTemplate
    opening: Sequence[Dict]
    ends: Sequence[str]
    tools: Sequence[Dict]
    style: CallStyle | None

    def results(self) -> TemplateFrame | None:
        """How tool results are laid out after an assistant's message; None where nothing is sound.

        After calls that are the template's own, where it writes them as the format reads them.
        Else tried in turn: messages of role tool after the assistant's text; the same after
        calls; one user message with the tags of Hermes.
        """
        style = self.style or CallStyle()
        said: Dict = {"role": "assistant", "content": ""}

        def calls(count: int) -> list[Dict]:
            ids = map(style.dummy_id, range(count))
            return [style.call(NAME, {"text": SAID}, id) for id in ids]

        def as_tools(texts: Sequence[str]) -> list[Dict]:
            given: Dict = {"role": "tool", "name": NAME}
            return [
                {**given, "tool_call_id": style.dummy_id(number), "content": text}
                for number, text in enumerate(texts)
            ]

        def behind_text(texts: Sequence[str]) -> list[Dict]:
            return [_said(), *as_tools(texts)]

        def behind_calls(texts: Sequence[str]) -> list[Dict]:
            return [{**said, "tool_calls": calls(len(texts))}, *as_tools(texts)]

        def behind_a_call(texts: Sequence[str]) -> list[Dict]:
            return [{**said, "tool_calls": calls(1)}, *as_tools(texts)]

        def as_user(texts: Sequence[str]) -> list[Dict]:
            return [_said(), {"role": "user", "content": "\n".join(map(tagged_result, texts))}]

        others = [behind_text, behind_calls, as_user]
        own = [] if self.style is None else [behind_calls, behind_a_call]
        return self._first([*own, *others], (1, 2, 3))

    def question(self) -> TemplateFrame | None:
        """How a later question is laid out; None where earlier messages are then rewritten."""

        def as_user(texts: Sequence[str]) -> list[Dict]:
            return [_said(), {"role": "user", "content": texts[0]}]

        return self._first([as_user], (1,))

    def _first(self, ways: Sequence[MessageShape], counts: Sequence[int]) -> TemplateFrame | None:
        frames = (self._frame(way, prepare, counts) for way in ways for prepare in _TRANSFORMS)
        return next((frame for frame in frames if frame is not None), None)

    def _frame(
        self, way: MessageShape, prepare: ContentTransform, counts: Sequence[int]
    ) -> TemplateFrame | None:
        """The layout for one way of writing the messages, if it holds for each of `counts`."""
        found: list[list[str]] = []
        for count in counts:
            # White space and a quotation mark show what the template does to a content.
            texts = [f' "{given}"\n' for given in GIVEN[:count]]
            try:
                before = self.template.render(self.opening, tools=self.tools, open_turn=False)
                whole = self.template.render([*self.opening, *way(texts)], tools=self.tools)
            except TemplateRefusal:
                return None
            pieces = _around(whole, [prepare(text) for text in texts])
            if pieces is None or not whole.startswith(before) or SAID not in pieces[0]:
                return None
            pieces[0] = pieces[0].rpartition(SAID)[2]
            found.append([self._marked(piece, number) for number, piece in enumerate(pieces)])
        joints = {joint for pieces in found for joint in pieces[1:-1]}
        if len(joints) > 1 or len({(pieces[0], pieces[-1]) for pieces in found}) > 1:
            return None
        called = "tool_calls" in way([""])[0]
        end, opened = _split(found[0][0], self.ends)
        between, close = "".join(joints), found[0][-1]
        style = self.style if called else None
        if style is None and any(mark in opened + between + close for mark in (_PREVIOUS, _NEXT)):
            return None  # results that name a call, of which nobody knows the name
        if called and end is None:
            return None  # no telling where the calls end
        if called and end:  # what closes the call is the policy's to write
            token = max((each for each in self.ends if each and end.endswith(each)), key=len)
            call = end.removesuffix(token)
            end = call[len(call.rstrip()) :] + token
        role = way([""])[-1]["role"]
        return TemplateFrame(end or "", opened, between, close, prepare, role, style)

    def _marked(self, text: str, number: int) -> str:
        """The text before the content of that number, with marks in place of the calls' ids."""
        style = self.style or CallStyle()
        text = text.replace(style.dummy_id(number), _NEXT)
        return text.replace(style.dummy_id(number - 1), _PREVIOUS) if number else text


def tagged_result(text: str) -> str:
    """A tool's result as Hermes writes it into a message of the user's role."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _said() -> Dict:
    return {"role": "assistant", "content": SAID}


def _around(text: str, contents: Sequence[str]) -> list[str] | None:
    """The pieces around contents that each occur in the text once, in order."""
    pieces: list[str] = []
    for content in contents:
        if text.count(content) != 1:
            return None
        piece, _, text = text.partition(content)
        pieces.append(piece)
    return [*pieces, text]


def _split(text: str, ends: Sequence[str]) -> tuple[str | None, str]:
    """Split into the assistant's end, with its end-of-turn token (or None), and the rest."""
    places = [(text.find(end), end) for end in ends if end and end in text]
    if not places:
        return None, text
    at, end = min(places)
    return text[: at + len(end)], text[at + len(end) :]


def _keeps_thinking(template: ChatTemplate, opening: Sequence[Dict]) -> bool:
    """True if the template keeps an earlier reply's thoughts after a new question."""
    reply = {"role": "assistant", "content": f"<think>\n{SAID}\n</think>\n\nYes."}
    try:
        text = template.render([*opening, reply, {"role": "user", "content": ASKED}])
    except TemplateRefusal:
        return True
    return SAID in text


def _takes_system(template: ChatTemplate) -> bool:
    """True if the template shows a system message."""
    messages = [{"role": "system", "content": SAID}, {"role": "user", "content": ASKED}]
    try:
        return SAID in template.render(messages)
    except TemplateRefusal:
        return False
