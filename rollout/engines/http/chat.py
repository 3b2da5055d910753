"""Text mode: a conversation as a chat API takes it, and a chat's deltas as text.

For servers that take messages and give text. The ledger then holds the conversation in a notation
of our own (`TEMPLATE`), with the bundled vocabulary. No model ever sees it: the server is sent
messages, and writes its own.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import tokenizers

from ...formats import Message
from ...tokenizer import Tokenizer
from .. import nano
from .client import DONE

__all__ = ["ChatReply", "chat_tokenizer", "to_chat"]

Dict: TypeAlias = dict[str, Any]
T = TypeVar("T")

_START, _END = "<|im_start|>", "<|im_end|>"
TEMPLATE = """\
{%- if tools %}<|im_start|>tools
{{ tools | tojson }}
Calls are written as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_THOUGHT = re.compile(r"\A<think>.*?</think>\s*", re.DOTALL)
_THOUGHTS = re.compile(r"(?:<think>\n?|\A)((?:(?!<think>).)*?)\n?</think>\s*", re.DOTALL)
_FIRST_HALF, _HALF = re.compile("[\ud800-\udbff]\\Z"), re.compile("[\ud800-\udfff]")


def chat_tokenizer() -> Tokenizer:
    """The tokenizer of the notation: the bundled vocabulary, whose ids count nothing here."""
    folder = nano.path()
    bundled = Tokenizer.load(folder)
    fast = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    fast.add_special_tokens([_START, _END])
    config = {"eos_token": _END, "chat_template": TEMPLATE}
    return Tokenizer(fast, config, bundled.path)


def to_chat(
    messages: Sequence[Message], thought_field: str | None = None, *, system: bool = True
) -> list[Dict]:
    """Messages as the chat API takes them; without `system`, the first user message begins with
    the system message. Messages of the user that follow each other become one: some servers refuse
    them.

    Thoughts at the head of earlier replies are left out, as chat templates do. Within the tool
    loop (`Message.said`) they go back as they came, in `thought_field` or else in the content: many
    servers refuse the next request without them.
    """
    sent: list[Dict] = []
    for message in messages:
        content, extra = message.content, {}
        if message.role == "assistant":
            content = _THOUGHT.sub("", content)
            thoughts = [*_THOUGHTS.finditer(message.said.partition("<tool_call>")[0])]
            if thoughts and thought_field is None:
                content = thoughts[0][0] + content
            elif thoughts and thought_field is not None:
                extra = {thought_field: "".join(thought[1] for thought in thoughts)}
        role = message.role if system or message.role != "system" else "user"
        if sent and role == sent[-1]["role"] == "user":
            sent[-1]["content"] += f"\n\n{content}"
            continue
        sent.append({"role": role, "content": content, **extra})
        if not message.calls:
            continue
        number = len(sent) + len(message.calls)
        ids = [call.id for call in message.calls]
        if not all(ids) or len(set(ids)) < len(ids):
            # Nine letters: some servers take no other ids.
            ids = [f"c{number:04d}{k:04d}" for k in range(len(message.calls))]
        sent[-1]["tool_calls"] = [
            {
                "id": id,
                "type": "function",
                "function": {"name": call.tool, "arguments": call.arguments},
            }
            for id, call in zip(ids, message.calls, strict=True)
        ]
        sent += [
            {"role": "tool", "tool_call_id": id, "content": call.result}
            for id, call in zip(ids, message.calls, strict=True)
        ]
    return sent


@dataclass(slots=True)
class _PartialCall:
    """A call as far as it has come: its arguments in the pieces in which they came."""

    id: str
    index: Any
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    _depth: int = 0  # of braces outside strings
    _quoted: bool = False
    _escaped: bool = False
    _closed: bool = False  # with the last piece the braces that were opened are all closed
    _misses: int = 0

    def add(self, piece: str) -> None:
        """Take in the next piece of the arguments."""
        self.pieces.append(piece)
        opened = self._depth > 0
        for character in piece:
            if self._quoted:
                self._quoted = self._escaped or character != '"'
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self._quoted = True
            elif character in "{}":
                self._depth += 1 if character == "{" else -1
                opened |= self._depth > 0
        ends = piece.strip() == "null" or (opened and self._depth == 0)
        self._closed = ends or (self._closed and not piece.strip())

    def whole(self) -> bool:
        """True if its arguments are an object already."""
        # A server that repeats the name with every piece has this asked each time. So the text is
        # read only where the braces say that it may end, and not if that was wrong too often.
        if not self.pieces or self._misses > 16:
            return False
        if not (self._closed or (self.pieces[-1].endswith("}") and self._cumulative())):
            return False
        whole = isinstance(self.arguments(), dict)
        self._misses += not whole
        return whole

    def _cumulative(self) -> bool:
        """True if the last piece begins as each piece does: each has all that there is so far."""
        return all(self.pieces[-1].startswith(_FIRST_HALF.sub("", piece)) for piece in self.pieces)

    def arguments(self) -> Any:
        """Arguments as an object where they are one; else as they were written, for the format to
        refuse.

        Some servers send all that there is so far in each piece, or the whole again at the end, or
        an empty object first.
        """
        *earlier, last = self.pieces or [""]
        ways = [_whole("".join(self.pieces))]
        if earlier and (_whole("".join(earlier)) == last or self._cumulative()):
            ways.append(last)
        if earlier and earlier[0].strip() == "{}":
            ways.append(_whole("".join(self.pieces[1:])))
        for way in ways:
            try:
                found = json.loads(way or "{}")
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict) or found is None:
                return found or {}
        return ways[0]


@dataclass(slots=True)
class ChatReply:
    """The pieces of a streamed reply, as text in our notation, in the order in which it is said.

    Thoughts that come apart from the content are put in `<think>` tags before it, native calls as
    JSON in tags after it, once the reply is over. Servers differ in what the protocol leaves open.
    Two rules tell calls apart: a new id with a name begins a new call; a piece without an id
    belongs to the latest call of its index, or else to the last call.
    """

    finish: str | None = None
    usage: Dict = field(default_factory=dict)
    """The server's counts of tokens, as far as it has told them."""
    thought_field: str | None = None
    """The field in which thoughts came, if not in the content."""
    unread: Dict = field(default_factory=dict)
    """The last event in which there was nothing of a reply."""
    unsaid: int = 0
    """Characters of calls, which become text at the end alone."""
    _thinking: bool = False
    _half: str = ""  # of a character that JSON wrote in two halves
    _calls: list[_PartialCall] = field(default_factory=list)

    def read(self, event: Any) -> str:
        """The text of one event. Raises ValueError, with the field's name, if it is not a chat's.

        The end of the stream (`DONE`), and a whole reply in one piece, are a good end where no
        other is told.
        """
        if event == DONE:
            self.finish = self.finish or "stop"
            return ""
        event = _typed(event, dict, "event")
        if not event.keys() & {"choices", "usage"}:
            self.unread = event
        self._count(event.get("usage"))
        choices = _typed(event.get("choices"), list, "choices")
        return "".join(self._read_choice(_typed(choice, dict, "choices")) for choice in choices)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict) and (usage.get("completion_tokens") or not self.usage):
            self.usage = usage

    def _read_choice(self, choice: Dict) -> str:
        if choice.get("index"):  # another reply to the same question, which nobody asked for
            return ""
        self._count(choice.get("usage"))
        finish = _typed(choice.get("finish_reason"), str, "finish_reason").lower()
        self.finish = finish or self.finish
        delta = _typed(choice.get("delta"), dict, "delta")
        if choice.get("delta") is None and choice.get("message") is not None:
            delta = _typed(choice["message"], dict, "message")
            self.finish = self.finish or "stop"
        text = ""
        for name in _THOUGHT_FIELDS:
            if delta.get(name):
                self.thought_field = name
                text += self._say(_parts(delta[name], name), thinking=True)
                break
        text += self._say(_parts(delta.get("content"), "content"))
        text += self._say(_parts(delta.get("refusal"), "refusal"))
        calls = delta.get("tool_calls")
        calls = [calls] if isinstance(calls, dict) else _typed(calls, list, "tool_calls")
        for at, call in enumerate(calls):
            self._read_call({"index": at or None} | _typed(call, dict, "tool_calls"))
        if delta.get("function_call"):  # the protocol's older way, with one call a reply
            self._read_call({"index": 0, "function": delta["function_call"]})
        return self._whole(text)

    def _say(self, parts: Iterable[tuple[bool, str]], *, thinking: bool = False) -> str:
        text = ""
        for thought, part in parts:
            if thought or thinking:
                text += ("" if self._thinking else "<think>\n") + part
                self._thinking = True
            else:
                text += self._close() + part
        return text

    def _read_call(self, piece: Dict) -> None:
        function = piece["function"] if piece.get("function") is not None else piece
        function = _typed(function, dict, "function")
        name = _typed(function.get("name"), str, "name")
        given = function.get("arguments")
        if not isinstance(given, str):
            given = json.dumps(given, ensure_ascii=False) if given else ""
        self.unsaid += len(name) + len(given)
        call = self._call_of(piece, name, given)
        # The first of the name, or all of it again; or its next part.
        call.name = name if name.startswith(call.name) else call.name + name
        if given:
            call.add(given)

    def _call_of(self, piece: Dict, name: str, given: str) -> _PartialCall:
        """The call that a piece belongs to; a new one if it begins one."""
        id, index = str(piece.get("id") or ""), piece.get("index")
        for call in self._calls:
            if id and call.id == id and (index is None or call.index in (None, index)):
                return call
        of_index = [call for call in self._calls if index is None or call.index == index]
        if of_index:
            latest = of_index[-1]
            if id and not (name and latest.name) and not (latest.id and latest.whole()):
                latest.id = latest.id or id  # it comes late, or each piece has another
                return latest
            # A call that is whole, and a name besides: the next one, of a server without ids.
            begins = name and (given or name != latest.name) and latest.whole()
            if begins and index is not None and name == latest.name:  # the same again: sent twice
                earlier = {_whole("".join(latest.pieces)), _whole(latest.pieces[-1])}
                begins = _whole(given) not in earlier
            if not (id or begins):
                return latest
        self._calls.append(_PartialCall(id, index))
        return self._calls[-1]

    def end(self) -> str:
        """The text that ends the reply: the calls."""
        text = self._close()
        for call in self._calls:
            body = {"name": call.name, "arguments": call.arguments()}
            body |= {"id": call.id} if call.id else {}
            # What looks like a control token stays as it is in a string of JSON.
            written = json.dumps(body, ensure_ascii=False).replace("<|", "\\u003c|")
            text += f"\n<tool_call>\n{written}\n</tool_call>"
        return self._whole(text, last=True)

    def _close(self) -> str:
        if not self._thinking:
            return ""
        self._thinking = False
        return "\n</think>\n\n"

    def _whole(self, text: str, *, last: bool = False) -> str:
        """Text without half characters; one at the end waits for its other half."""
        text, self._half = self._half + text, ""
        if not last and _FIRST_HALF.search(text):
            text, self._half = text[:-1], text[-1]
        return _whole(text)


def _whole(text: str) -> str:
    """Text with the halves of each character joined, and a mark for a half that is alone."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _typed(value: Any, kind: type[T], name: str) -> T:
    """The value of a field, or an empty one. Raises ValueError for another type."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise ValueError(f"{name} can't be {json.dumps(value)[:60]}")
    return value


def _parts(value: Any, name: str) -> Iterator[tuple[bool, str]]:
    """The texts of a content that is text or a list of parts; True for those that are thought."""
    if isinstance(value, list):
        for each in value:
            yield from _parts(each, name)
    elif isinstance(value, dict):
        kind = _typed(value.get("type", "text"), str, "type")
        found = next(
            (value[key] for key in (kind, "text", "content", "summary") if key in value), None
        )
        thought = any(word in kind for word in ("think", "reason", "summary"))
        if found is None or not (thought or kind.endswith("text") or kind == "refusal"):
            raise ValueError(f"{name} has a part of type {json.dumps(kind)[:60]}")
        yield from ((thought or inner, text) for inner, text in _parts(found, name))
    elif text := _typed(value, str, name):
        yield False, text
