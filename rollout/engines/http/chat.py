"""Text mode: a ledger's ids as the messages of a chat, and a chat's deltas as ids.

For servers that take messages and give text. The ledger holds the conversation in a notation of
our own (`TEMPLATE`); here it is read back, so that what is sent is a view on the ledger like any
other. No model ever sees the notation: the server writes its own.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import tokenizers

from ...formats.base import Message
from ...tokenizer import Tokenizer

__all__ = ["Deltas", "chat_tokenizer", "read_chat"]

Dict: TypeAlias = dict[str, Any]

_START, _END = "<|im_start|>", "<|im_end|>"
TEMPLATE = """\
{%- if tools %}<|im_start|>tools
{{ tools | tojson }}
Calls are written as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", re.DOTALL)
_CALL = re.compile(r"\n?<tool_call>\n(.*?)\n</tool_call>", re.DOTALL)
_CALL_END = "\n</tool_call>"
_THOUGHT = re.compile(r"\A<think>.*?</think>\s*", re.DOTALL)
_HIGH, _LOW = re.compile("[\ud800-\udbff]\\Z"), re.compile("[\ud800-\udfff]")


def chat_tokenizer() -> Tokenizer:
    """The tokenizer of the notation: the bundled vocabulary, whose counts are estimates here."""
    from ..nano import path

    folder = path()
    bundled = Tokenizer.load(folder)
    fast = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.no_truncation()
    fast.no_padding()
    fast.add_special_tokens([_START, _END])
    config = {"eos_token": _END, "chat_template": TEMPLATE}
    return Tokenizer(fast, config, bundled.path)


def read_chat(text: str) -> tuple[list[Dict], list[Dict], str]:
    """The messages and the tools of a conversation in our notation, as the chat API takes them,
    and what the assistant has said of its open message.

    Thoughts at the head of earlier replies are left out, as chat templates do.
    """
    said = [Message(role, content) for role, content in _MESSAGE.findall(text)]
    tools: list[Dict] = []
    if said and said[0].role == "tools":
        tools = json.loads(said.pop(0).content.partition("\n")[0])
    begun = said.pop().content if said and said[-1].role == "assistant" else ""
    messages: list[Dict] = []
    at = 0
    while at < len(said):
        role, content = said[at].role, said[at].content
        at += 1
        if role != "assistant":
            messages.append({"role": role, "content": content})
            continue
        results = []
        while at < len(said) and said[at].role == "tool":
            results.append(said[at].content)
            at += 1
        messages += _turn(_THOUGHT.sub("", content), results, at)
    return messages, tools, begun


def _turn(content: str, results: list[str], number: int) -> list[Dict]:
    """A reply and the results of its calls. Where the two don't match, one for one, as text."""
    # Behind the last end of a call each beginning of one would be followed to the text's end.
    last = content.rfind(_CALL_END)
    last += len(_CALL_END) if last >= 0 else 1
    bodies = _CALL.findall(content, 0, last)
    calls = [call for body in bodies if (call := _call(body)) is not None]
    if not results:
        return [{"role": "assistant", "content": content}]
    if len(calls) != len(results):
        given = "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in results)
        return [{"role": "assistant", "content": content}, {"role": "user", "content": given}]
    ids = [f"c{number:04d}{k:04d}" for k in range(len(calls))]  # nine letters: some want no other
    named = [
        {"id": id, "type": "function", "function": call}
        for id, call in zip(ids, calls, strict=True)
    ]
    said = _CALL.sub("", content[:last]) + content[last:]
    reply = {"role": "assistant", "content": said.strip(), "tool_calls": named}
    answers = [
        {"role": "tool", "tool_call_id": id, "content": text}
        for id, text in zip(ids, results, strict=True)
    ]
    return [reply, *answers]


def _call(body: str) -> Dict | None:
    try:
        call = json.loads(body)
        name, arguments = call["name"], call["arguments"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"name": name, "arguments": written} if isinstance(name, str) else None


@dataclass(slots=True)
class Deltas:
    """The pieces of a streamed reply, as text in our notation, in the order in which it is said.

    Thoughts that come apart from the content stand in `<think>` tags before it; native calls come
    as JSON in tags behind it, once the reply is over.
    """

    finish: str | None = None
    _thinking: bool = False
    _half: str = ""  # of a character that JSON wrote in two halves
    _calls: dict[int, dict[str, list[str]]] = field(default_factory=dict)

    def read(self, choice: Dict) -> str:
        """The text of one event's choice. Raises LookupError, TypeError or AttributeError where it
        is none.
        """
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
            made = self._calls.setdefault(call.get("index", at), {"name": [], "arguments": []})
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
