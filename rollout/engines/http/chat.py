"""Text mode: a conversation as a chat API takes it, and a chat's deltas as text.

For servers that take messages and give text. The ledger then holds the conversation in a notation
of our own (`TEMPLATE`), with the bundled vocabulary. No model ever sees it: the server is sent
messages, and writes its own.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import tokenizers

from ...formats import Message
from ...tokenizer import Tokenizer
from .. import nano

__all__ = ["ChatReply", "chat_tokenizer", "to_chat"]

Dict: TypeAlias = dict[str, Any]

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

_THOUGHT = re.compile(r"\A<think>.*?</think>\s*", re.DOTALL)
_HIGH, _LOW = re.compile("[\ud800-\udbff]\\Z"), re.compile("[\ud800-\udfff]")


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


def to_chat(messages: Sequence[Message]) -> list[Dict]:
    """Messages as the chat API takes them.

    Thoughts at the head of earlier replies are left out, as chat templates do.
    """
    sent: list[Dict] = []
    for message in messages:
        content = message.content
        if message.role == "assistant":
            content = _THOUGHT.sub("", content)
        sent.append({"role": message.role, "content": content})
        if not message.calls:
            continue
        number = len(sent) + len(message.calls)
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
class ChatReply:
    """The pieces of a streamed reply, as text in our notation, in the order in which it is said.

    Thoughts that come apart from the content are put in `<think>` tags before it, native calls as
    JSON in tags after it, once the reply is over.
    """

    finish: str | None = None
    usage: Dict = field(default_factory=dict)
    """The server's counts of tokens, as far as it has told them."""
    _thinking: bool = False
    _half: str = ""  # of a character that JSON wrote in two halves
    _calls: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    def read(self, event: Dict) -> str:
        """The text of one event. Raises LookupError, TypeError or AttributeError if it is not a
        chat's.
        """
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        return "".join(map(self._read_choice, event.get("choices") or ()))

    def _read_choice(self, choice: Dict) -> str:
        delta = choice.get("delta") or choice.get("message") or {}
        self.finish = choice.get("finish_reason") or self.finish
        text = ""
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        if thought:
            text += ("" if self._thinking else "<think>\n") + thought
            self._thinking = True
        if delta.get("content"):
            text += self._close() + delta["content"]
        for at, call in enumerate(delta.get("tool_calls") or ()):
            index = call.get("index")
            key = index if isinstance(index, int) else at
            made = self._calls.setdefault(key, {"name": [], "arguments": []})
            function = call.get("function") or {}
            if not isinstance(name := function.get("name") or "", str):
                raise TypeError("the name of a call is not text")
            made["name"].append(name)
            given = function.get("arguments") or ""
            made["arguments"].append(given if isinstance(given, str) else json.dumps(given))
        return self._whole(text)

    def end(self) -> str:
        """The text that ends the reply: the calls."""
        text = self._close()
        for _, call in sorted(self._calls.items()):
            name, arguments = "".join(call["name"]), "".join(call["arguments"])
            body = {"name": name, "arguments": _object(arguments)}
            written = json.dumps(body, ensure_ascii=False)
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
        if not last and _HIGH.search(text):
            text, self._half = text[:-1], text[-1]
        if _LOW.search(text):
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text


def _object(arguments: str) -> Any:
    """Arguments as an object where they are one; else as they were written, for the format to
    refuse.
    """
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments
