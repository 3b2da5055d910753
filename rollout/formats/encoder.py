"""From text to ids, for one format, one tokenizer and one set of tools.

The one place that knows chat templates. The ids of a tool turn are worked out once per template;
nothing the policy sampled is ever rendered again.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from ...tools import Tool
from ...tools.errors import UsageError
from ..ledger import Source, Span
from ..tokenizer import Tokenizer
from ..trajectory import CallRecord
from .base import Format, Message
from .layout import TemplateFrame, TemplateLayouts, tagged_result
from .native import CallStyle, describes
from .schema import tool_schema
from .template import TemplateRefusal
from .tool_calls import ToolCalls

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
        system: str = "",
        layouts: TemplateLayouts | None = None,
    ) -> None:
        """`system` is an application's own words; what the format tells the model follows them."""
        self.format = format
        self.tokenizer = tokenizer
        self._a_tool = tools[0].name if tools else ""
        self._layouts = layouts or TemplateLayouts(tokenizer)
        self.template = self._layouts.template
        self.takes_system = self._layouts.takes_system
        style = None if format.inline else self._layouts.style(format)
        self.tells_tools = bool(tools) and style is not None and describes(self.template, tools)
        """Whether the template tells the model of the tools (else the system prompt does)."""
        self._tools = tools
        self.schemas = [tool_schema(tool) for tool in tools] if self.tells_tools else []
        self._own_words = system
        self._system = self._after_own_words(format.system(() if self.tells_tools else tools))
        self._results: TemplateFrame | None = None  # until it is found
        self._layout = self._layouts.find(
            self.messages("?"), self.schemas, results=not format.inline, style=style
        )
        self._results = self._layout.results
        if not format.inline and self._results is None and tools:
            raise UsageError(
                f"the chat template in {tokenizer.path} can't take tool results in the format "
                f"{format.name}; use one with tags, such as retool"
            )

    def with_tools(self, tools: Sequence[Tool]) -> "Encoder":
        """The same for other tools. What the template was asked once is not asked again."""
        return self.with_format(self.format, tools)

    def with_format(self, format: Format, tools: Sequence[Tool]) -> "Encoder":
        """The same for another format. Raises as the constructor does."""
        return Encoder(format, self.tokenizer, tools, system=self._own_words, layouts=self._layouts)

    def with_system(self, system: str) -> "Encoder":
        """The same with other words of an application's own."""
        return Encoder(
            self.format, self.tokenizer, self._tools, system=system, layouts=self._layouts
        )

    @property
    def continues(self) -> bool:
        """True if a later question goes into the same ledger."""
        return self._layout.question is not None

    @property
    def strips_thinking(self) -> bool:
        """True if the template leaves earlier thoughts out once a later question has come."""
        return self._layout.strips_thinking

    def turn_end(self, *, calls: bool) -> list[int]:
        """The token with which the model ends a turn: one that calls tools may have its own."""
        frame = self._results
        named = self.tokenizer.encode(self.tokenizer.special_text("eos_token") or "")
        if calls and frame is not None and frame.end:
            return self.tokenizer.encode_continuation(frame.end)[-1:]
        return named if len(named) == 1 else sorted(self.tokenizer.eos_ids)[:1]

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
        frame = self._results
        assert frame is not None, "checked when the encoder was made"
        text = "" if ended else frame.end
        ids = self._ids(harmless, frame)
        for number, call in enumerate(harmless):
            name = self.tokenizer.escape_control_tokens(call.tool)
            text += frame.before(number, name, ids) + frame.prepare(self.format.render([call]))
        return self._result_spans(text, frame, frame.behind(ids), ended, notice)

    def _ids(self, calls: Sequence[CallRecord], frame: TemplateFrame) -> list[str]:
        """The ids of calls: those the model wrote, else what the template wants."""
        escape = self.tokenizer.escape_control_tokens
        style = frame.style or CallStyle()
        return [
            escape(str(call.details.get("id") or style.id(call.tool, number)))
            for number, call in enumerate(calls)
        ]

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
        """Text as a tool's output may appear in a ledger of this format."""
        return self.tokenizer.escape_control_tokens(text, self.format.control_tags)

    def _result_spans(
        self, text: str, frame: TemplateFrame, close: str, ended: bool, notice: str
    ) -> list[Span]:
        """The notice goes inside the last message, on its own line."""
        if not notice:
            return _spans((Source.TOOL, self._behind(text + close, ended)))
        told = frame.prepare(f"x\n[{self.escape_control_tokens(notice)}]")[1:]
        encode = self.tokenizer.encode_continuation
        return _spans(
            (Source.TOOL, self._behind(text, ended)),
            (Source.HOST, encode(told)),
            (Source.TOOL, encode(close)),
        )

    def _behind(self, text: str, ended: bool) -> list[int]:
        """Ids of text after the policy's own tokens: encoded as the whole would have been."""
        end = self.tokenizer.special_text("eos_token") if ended else None
        return self.tokenizer.encode_continuation(text, after=end)

    def messages(self, question: str, history: Sequence[Message] = ()) -> list[dict[str, Any]]:
        """The messages given to the template for a prompt: system message, history, question."""
        conversation = [*history, Message("user", question)]
        escaped = self.escaped(conversation)
        head = escaped[:1] if escaped[0].role == "system" else []
        if conversation[0].role == "system":
            conversation = conversation[1:]
        messages = self._given(conversation, escaped[len(head) :])
        if not head:
            return messages
        if self.takes_system:
            return [{"role": "system", "content": head[0].content}, *messages]
        first = next(message for message in messages if message["role"] == "user")
        first["content"] = f"{head[0].content}\n\n{first['content']}"
        return messages

    def escaped(self, messages: Sequence[Message], *, tells_tools: bool = False) -> list[Message]:
        """A conversation with the format's system message at its head, added to one that is there.
        `tells_tools`: it explains the tools even if the template would.

        Control tokens in it are broken up; in what a model said, tags such as <think> stay.
        """
        system = self._system
        if tells_tools:
            system = self._after_own_words(self.format.system(self._tools))
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

    def _after_own_words(self, told: str) -> str:
        own = self.tokenizer.escape_control_tokens(self._own_words)
        return "\n\n".join(filter(None, (own, told)))

    def _given(self, said: Sequence[Message], escaped: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages for the template, from what was said and the same escaped.

        A turn whose calls hold control tokens is given as data, as the template's makers meant it,
        with the results after it as those of its calls.
        """
        given: list[dict[str, Any]] = []
        open_calls: list[dict[str, Any]] = []
        frame = self._results
        for message, harmless in zip(said, escaped, strict=True):
            role, content = message.role, harmless.content
            if role == "assistant":
                turn = self._turn(message.content, content, frame)
                open_calls = list(turn.get("tool_calls", ()))
                given.append(turn)
            elif role == "tool":
                for result in message.results or (message.content,):
                    given.append(self._result(result, open_calls, frame))
            else:
                given.append({"role": role, "content": content})
        return given

    def _result(
        self, text: str, open_calls: list[dict[str, Any]], frame: TemplateFrame | None
    ) -> dict[str, Any]:
        """A result as a message: of the next open call, where calls were given as data."""
        content = self.escape_control_tokens(text)
        if open_calls:
            call = open_calls.pop(0)
            named = {"name": call["function"]["name"], "tool_call_id": call["id"]}
            return {"role": "tool", **named, "content": content}
        if frame is not None and frame.role == "user":
            return {"role": "user", "content": tagged_result(content)}
        return {"role": "tool", "content": content}

    def _turn(self, text: str, harmless: str, frame: TemplateFrame | None) -> dict[str, Any]:
        """A turn of the model as a message: its text, or what it said and called as data."""
        style = None if frame is None else frame.style
        if style is None or harmless == text or not isinstance(self.format, ToolCalls):
            return {"role": "assistant", "content": harmless}
        escape = partial(self.tokenizer.escape_control_tokens, special_only=True)
        turn = self.format.read_turn(text, self._tools)
        said = {"role": "assistant"} | {key: escape(words) for key, words in turn.words.items()}
        calls = []
        for number, call in enumerate(turn.calls):
            name, id = escape(call.tool), escape(call.id) or style.id(call.tool, number)
            calls.append(style.call(name, _escaped(call.arguments, escape), id))
        return {**said, "tool_calls": calls} if calls else said


def _escaped(value: Any, escape: Callable[[str], str]) -> Any:
    """A JSON value with each text in it escaped."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list):
        return [_escaped(each, escape) for each in value]
    if isinstance(value, dict):
        return {escape(key): _escaped(each, escape) for key, each in value.items()}
    return value


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
    return CallRecord(call.tool, call.arguments, output, call.error, details=call.details)
