"""A list of messages as a question, in the shape of chat APIs."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..rollout.formats import Message
from ..tools.errors import UsageError

__all__ = ["Question", "read_messages", "read_question"]

Question: TypeAlias = str | Sequence[Mapping[str, Any]]
"""A text; or messages with `role` and `content`, of which the last is the user's question."""

_SYSTEM, _SAID = ("system", "developer"), ("user", "assistant")


def read_messages(given: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[Message, ...]]:
    """The system prompt, which joins all system messages, and the other messages in order.

    Roles are `system` (or `developer`), `user` and `assistant`; a content is a text, or a list of
    parts of type `text`. Raises UsageError for other roles, calls of tools and other contents.

    Example:
        >>> read_messages([{"role": "system", "content": "Be brief."}])
        ('Be brief.', ())
    """
    system, said = [], []
    for number, message in enumerate(given):
        where = f"message {number} of the question"
        if not isinstance(message, Mapping):
            raise UsageError(f"{where} is a {type(message).__name__}: give role and content")
        role = message.get("role")
        if role not in (*_SYSTEM, *_SAID) or message.get("tool_calls"):
            what = f"the role {role!r}" if role not in _SAID else "calls of tools"
            raise UsageError(f"{where} has {what}: system, user and assistant are taken, as texts")
        content = _text(message.get("content"), where)
        if role in _SYSTEM:
            system.append(content)
        else:
            said.append(Message(role, content))
    return "\n\n".join(system), tuple(said)


def read_question(given: Question) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """The text of the question, and the messages before it. Raises UsageError without a question
    at the end.
    """
    if isinstance(given, str):
        return given, ()
    last = given[-1] if isinstance(given, Sequence) and given else None
    if not isinstance(last, Mapping) or last.get("role") != "user":
        raise UsageError("the last message of a list is the question: give it the role user")
    return _text(last.get("content"), "the last message"), given[:-1]


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else [content]
    texts = [part.get("text") if isinstance(part, Mapping) else None for part in parts]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{where} has a content that is not text: leave out pictures and files")
    return "\n".join(map(str, texts))
