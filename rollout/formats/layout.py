"""Text a chat template writes between an assistant's message and the next one.

Found once per template, by rendering dummy conversations and looking at the text around the
dummy texts in them; a conversation that was sampled is never rendered again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..tokenizer import Tokenizer
from .template import ChatTemplate, TemplateRefusal

__all__ = ["Layout", "TemplateFrame", "TemplateLayouts", "tagged_result", "takes_tools"]

Dict: TypeAlias = dict[str, Any]
ContentTransform: TypeAlias = Callable[[str], str]
MessageShape: TypeAlias = Callable[[Sequence[str]], list[Dict]]

# Dummy texts: words that no template holds, changes or escapes.
SAID, ASKED, NAME, CALL_ID = "Qzsaid", "Qzasked", "qzname", "qzcallid0"
GIVEN = ("Qzgiven", "Qzother", "Qzthird")


@dataclass(frozen=True, slots=True)
class TemplateFrame:
    """The text around one or several given messages that answer an assistant's.

    `end` closes the assistant's message ("" where the template writes nothing), then comes `open`,
    a content, any number of (`between`, a content), and `close`, with what opens the assistant's
    next message. `prepare` is what the template does to a content (trim it, escape it as JSON);
    `role` is the role that the messages have.
    """

    end: str
    open: str
    between: str
    close: str
    prepare: ContentTransform
    role: str

    def opening(self, name: str) -> str:
        """`open`, naming the tool where the template does."""
        return self.open.replace(NAME, name)

    def joint(self, name: str) -> str:
        """`between`, naming the tool of the next content where the template does."""
        return self.between.replace(NAME, name)


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

    `question` is around a later question, None where earlier messages are then written anew;
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
        self._found: dict[tuple[int, bool, bool], Layout] = {}

    def find(self, opening: Sequence[Dict], tools: Sequence[Dict], *, results: bool) -> Layout:
        """The layout behind the messages `opening`, the last one the first question, with the
        schemas `tools` given to the template; with `results`, of tool results too.
        """
        kind = (len(opening), bool(tools), results)
        if kind not in self._found:
            probe = _Probe(self.template, opening, self._ends, tools)
            strips = not _keeps_thinking(self.template, opening)
            question = None if strips else probe.question()
            self._found[kind] = Layout(strips, question, probe.results() if results else None)
        return self._found[kind]


@dataclass(frozen=True, slots=True)
class _Probe:
    """The inputs of the search for one template's frames.

    `opening` are the messages up to the first question, `ends` the texts of the end-of-sequence
    tokens, `tools` the schemas the template is given.
    """

    template: ChatTemplate
    opening: Sequence[Dict]
    ends: Sequence[str]
    tools: Sequence[Dict]

    def results(self) -> TemplateFrame | None:
        """How tool results are laid out behind an assistant's message; None where nothing is sound.

        Tried in turn: messages of role tool behind the assistant's text; the same behind calls as
        the template's own data; one user message with the tags of Hermes.
        """
        call: Dict = {"id": CALL_ID, "type": "function"}
        call["function"] = {"name": NAME, "arguments": {"a": SAID}}

        def as_tools(texts: Sequence[str]) -> list[Dict]:
            return [
                {"role": "tool", "name": NAME, "tool_call_id": CALL_ID, "content": text}
                for text in texts
            ]

        def behind_text(texts: Sequence[str]) -> list[Dict]:
            return [_said(), *as_tools(texts)]

        def behind_calls(texts: Sequence[str]) -> list[Dict]:
            return [{**_said(), "tool_calls": [call] * len(texts)}, *as_tools(texts)]

        def as_user(texts: Sequence[str]) -> list[Dict]:
            return [_said(), {"role": "user", "content": "\n".join(map(tagged_result, texts))}]

        return self._first([behind_text, behind_calls, as_user], (1, 2, 3))

    def question(self) -> TemplateFrame | None:
        """How a later question is laid out; None where earlier messages are then written anew."""

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
            found.append([pieces[0].rpartition(SAID)[2], *pieces[1:]])
        joints = {joint for pieces in found for joint in pieces[1:-1]}
        if len(joints) > 1 or len({(pieces[0], pieces[-1]) for pieces in found}) > 1:
            return None
        end, opened = _split(found[0][0], self.ends)
        between, close = "".join(joints), found[0][-1]
        if CALL_ID in opened + between + close:
            return None  # results that name a call, which the format does not number
        if end is None and "tool_calls" in way([""])[0]:
            return None  # no telling where the calls end
        return TemplateFrame(end or "", opened, between, close, prepare, way([""])[-1]["role"])


def tagged_result(text: str) -> str:
    """A tool's result as Hermes writes it into a message of the user's role."""
    return f"<tool_response>\n{text}\n</tool_response>"


def _said() -> Dict:
    return {"role": "assistant", "content": SAID}


def _around(text: str, contents: Sequence[str]) -> list[str] | None:
    """The pieces around contents that each stand in the text once, in order."""
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


def takes_tools(template: ChatTemplate, tools: Sequence[Mapping[str, Any]]) -> bool:
    """True if the template describes tools, and asks for calls that the format hermes reads."""
    messages = [{"role": "user", "content": ASKED}]
    try:
        bare, text = template.render(messages), template.render(messages, tools=tools)
    except TemplateRefusal:
        return False
    named = all(tool["function"]["name"] in text for tool in tools)
    return named and text != bare and "<tool_call>" in text and "<function=" not in text
