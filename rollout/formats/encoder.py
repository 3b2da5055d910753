"""From text to ids, for one format, one tokenizer and one set of tools.

The one place that knows chat templates. The ids of a tool turn are worked out once per template;
nothing the policy sampled is ever rendered again.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...tools import Tool
from ...tools.errors import UsageError
from ..ledger import Source, Span
from ..tokenizer import Tokenizer
from ..trajectory import CallRecord
from .base import Format, Message
from .hermes import tool_schema
from .layout import TemplateFrame, TemplateLayouts, tagged_result, takes_tools
from .template import TemplateRefusal

__all__ = ["Encoder"]


class Encoder:
    """Makes the spans that the policy does not write.

    What people and tools wrote is made harmless first: a control token or a tag of the format in
    it becomes plain text, visibly. Raises TokenizerError where the chat template is broken, and
    UsageError where it can't carry tool results and the format needs it to.
    """

    def __init__(
        self,
        format: Format,
        tokenizer: Tokenizer,
        tools: Sequence[Tool],
        *,
        layouts: TemplateLayouts | None = None,
    ) -> None:
        self.format = format
        self.tokenizer = tokenizer
        self._a_tool = tools[0].name if tools else ""
        self._layouts = layouts or TemplateLayouts(tokenizer)
        self.template = self._layouts.template
        self.takes_system = self._layouts.takes_system
        schemas = [] if format.inline else [tool_schema(tool) for tool in tools]
        self.tells_tools = bool(schemas) and takes_tools(self.template, schemas)
        """Whether the template tells the model of the tools (else the system prompt does)."""
        self.schemas = schemas if self.tells_tools else []
        self._system = format.system(() if self.tells_tools else tools)
        self._layout = self._layouts.find(
            self.messages("?"), self.schemas, results=not format.inline
        )
        if not format.inline and self._layout.results is None and tools:
            raise UsageError(
                f"the chat template in {tokenizer.path} can't take tool results in the format "
                f"{format.name}; use one with tags, such as retool"
            )

    def with_tools(self, tools: Sequence[Tool]) -> "Encoder":
        """The same for other tools. What the template was asked once is not asked again."""
        return self.with_format(self.format, tools)

    def with_format(self, format: Format, tools: Sequence[Tool]) -> "Encoder":
        """The same for another format. Raises as the constructor does."""
        return Encoder(format, self.tokenizer, tools, layouts=self._layouts)

    @property
    def continues(self) -> bool:
        """True if a later question goes into the same ledger."""
        return self._layout.question is not None

    @property
    def strips_thinking(self) -> bool:
        """True if the template leaves earlier thoughts out once a later question has come."""
        return self._layout.strips_thinking

    def prompt(self, question: str, history: Sequence[Message] = ()) -> list[Span]:
        """The spans (source PROMPT) that open a ledger: system, history, question, and whatever
        comes before the first token of the policy.

        A system message at the head of the history is added to the format's own. Raises UsageError
        where the template does not take these messages.
        """
        messages = self.messages(question, history)
        try:
            text = self.template.render(messages, tools=self.schemas)
        except TemplateRefusal:
            try:
                text = self.template.render(_in_turns(messages), tools=self.schemas)
            except TemplateRefusal as error:
                raise UsageError(f"the chat template refuses these messages: {error}") from error
        return _spans((Source.PROMPT, self.tokenizer.encode(text)))

    @cached_property
    def result_overhead(self) -> int:
        """Tokens that the format or the template writes around one call's output."""
        shown = CallRecord(self._a_tool, {}, "1")
        whole = sum(map(len, self.results([shown], ended=False)))
        return whole - len(self.tokenizer.encode(shown.output))

    def results(self, calls: Sequence[CallRecord], *, ended: bool, notice: str = "") -> list[Span]:
        """The spans (TOOL, and HOST for the notice) that answer one turn's calls.

        `ended`: the policy's turn closed with an end-of-sequence token of its own.
        """
        if not calls:
            return []
        harmless = [_replace(call, self.escape_control_tokens(call.output)) for call in calls]
        if self.format.inline:
            text = self.format.render(harmless)
            notice = f"[{self.escape_control_tokens(notice)}]\n" if notice else ""
            encode = self.tokenizer.encode_continuation
            return _spans((Source.TOOL, encode(text)), (Source.HOST, encode(notice)))
        frame = self._layout.results
        assert frame is not None, "checked when the encoder was made"
        text = "" if ended else frame.end
        for number, call in enumerate(harmless):
            name = self.tokenizer.escape_control_tokens(call.tool)
            text += frame.joint(name) if number else frame.opening(name)
            text += frame.prepare(self.format.render([call]))
        return self._result_spans(text, frame, ended, notice)

    def follow_up(self, question: str, *, ended: bool) -> list[Span] | None:
        """The spans (PROMPT) of a later question in the same ledger; None where the template
        strips earlier thinking (or otherwise writes earlier messages anew), so that a new ledger
        has to be opened with the history.
        """
        frame = self._layout.question
        if frame is None:
            return None
        asked = frame.prepare(self.tokenizer.escape_control_tokens(question))
        text = ("" if ended else frame.end) + frame.open + asked + frame.close
        return _spans((Source.PROMPT, self._behind(text, ended)))

    def escape_control_tokens(self, text: str) -> str:
        """Text as a tool's output may stand in a ledger of this format."""
        return self.tokenizer.escape_control_tokens(text, self.format.control_tags)

    def _result_spans(
        self, text: str, frame: TemplateFrame, ended: bool, notice: str
    ) -> list[Span]:
        """The notice goes inside the last message, on a line of its own."""
        if not notice:
            return _spans((Source.TOOL, self._behind(text + frame.close, ended)))
        told = frame.prepare(f"x\n[{self.escape_control_tokens(notice)}]")[1:]
        encode = self.tokenizer.encode_continuation
        return _spans(
            (Source.TOOL, self._behind(text, ended)),
            (Source.HOST, encode(told)),
            (Source.TOOL, encode(frame.close)),
        )

    def _behind(self, text: str, ended: bool) -> list[int]:
        """Ids of text behind the policy's own tokens: encoded as the whole would have been."""
        end = self.tokenizer.special_text("eos_token") if ended else None
        return self.tokenizer.encode_continuation(text, after=end)

    def messages(self, question: str, history: Sequence[Message] = ()) -> list[dict[str, Any]]:
        """The messages given to the template for a prompt: system message, history, question."""
        messages: list[dict[str, Any]] = []
        for message in self.escaped([*history, Message("user", question)]):
            role, content = message.role, message.content
            if role == "tool":
                frame = self._layout.results
                if frame is not None and frame.role == "user":
                    role, content = "user", tagged_result(content)
            messages.append({"role": role, "content": content})
        if messages[0]["role"] == "system" and not self.takes_system:
            system = messages.pop(0)["content"]
            first = next(message for message in messages if message["role"] == "user")
            first["content"] = f"{system}\n\n{first['content']}"
        return messages

    def escaped(self, messages: Sequence[Message]) -> list[Message]:
        """A conversation with the format's system message at its head, added to one that is there.

        Control tokens in it are broken up; in what a model said, tags such as <think> stay.
        """
        system = self._system
        if messages and messages[0].role == "system":
            system = "\n\n".join(filter(None, (system, messages[0].content)))
            messages = messages[1:]
        escaped = [Message("system", system)] if system else []
        for message in messages:
            content = message.content
            if message.role == "assistant":
                content = self.tokenizer.escape_control_tokens(content, special_only=True)
            elif message.role == "tool":
                content = self.escape_control_tokens(content)
            else:
                content = self.tokenizer.escape_control_tokens(content)
            escaped.append(Message(message.role, content, message.results))
        return escaped


def _in_turns(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, as strict templates want it: a user begins, and no role speaks twice in a row."""
    ordered: list[dict[str, Any]] = []
    for message in messages:
        last = ordered[-1]["role"] if ordered else None
        if last in (None, "system") and message["role"] not in ("system", "user"):
            continue
        if last == message["role"]:
            content = f"{ordered[-1]['content']}\n\n{message['content']}"
            ordered[-1] = {"role": last, "content": content}
        else:
            ordered.append(message)
    return ordered


def _spans(*parts: tuple[Source, list[int]]) -> list[Span]:
    return [Span.given(source, ids) for source, ids in parts if ids]


def _replace(call: CallRecord, output: str) -> CallRecord:
    return CallRecord(tool=call.tool, arguments=call.arguments, output=output, error=call.error)
