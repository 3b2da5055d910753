"""A text server that says what a script tells it, and remembers the messages it was sent."""

import json
from typing import Any, TypeAlias

from support.servers import Asked, delta

Reply: TypeAlias = dict[str, Any]


def says(text: str = "", *calls: tuple[str, str], thought: str = "", **more: Any) -> Reply:
    """One reply: a thought, text, and native calls (name, arguments); its `usage` and `finish`."""
    return {"text": text, "calls": calls, "thought": thought, **more}


class TextServer:
    """Serves one model, `big`; replies come in order. A request with the field `refuses` is not
    taken. `card` is more of what it says of the model.
    """

    def __init__(self, *replies: Reply, refuses: str = "", **card: Any) -> None:
        self.refuses = refuses
        self.card = {"id": "big", **card}
        self.replies = list(replies)
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, asked: Asked) -> None:
        if asked.path == "/v1/models":
            return await asked.json({"data": [self.card]})
        if self.refuses in asked.body:
            body = {"error": {"message": f"Unsupported parameter: {self.refuses!r}"}}
            return await asked.json(body, 400)
        self.bodies.append(asked.body)
        reply = self.replies.pop(0)
        events: list[Any] = []
        if reply["thought"]:
            events.append(delta(None, reasoning_content=reply["thought"]))
        if reply["text"]:
            events.append(delta(reply["text"]))
        for index, (name, arguments) in enumerate(reply["calls"]):
            call = {"index": index, "function": {"name": name, "arguments": arguments}}
            events.append(delta(None, tool_calls=[call]))
        events.append(delta(None, reply.get("finish", "tool_calls" if reply["calls"] else "stop")))
        if "usage" in reply:
            events.append({"choices": [], "usage": reply["usage"]})
        await asked.events(events)

    @property
    def sent(self) -> list[Any]:
        """What each request had of messages and tools."""
        return [[body["messages"], body.get("tools", [])] for body in self.bodies]


def call(code: str) -> tuple[str, str]:
    return "python", json.dumps({"code": code})
