"""LangChain's tools as ours, without an import of LangChain: its objects say all that is needed."""

import json
import re
import uuid
from collections.abc import Awaitable
from typing import Any, Protocol, TypeGuard

from pydantic import BaseModel, ConfigDict

from .base import ErrorKind, ToolResult
from .function import FunctionTool

__all__ = ["LangChainTool", "from_langchain", "is_langchain"]


class LangChainTool(Protocol):
    """The members of LangChain's `BaseTool` that are used here."""

    name: str
    description: str

    @property
    def args_schema(self) -> Any:
        """The arguments, those that are injected among them."""
        ...

    @property
    def tool_call_schema(self) -> Any:
        """The arguments that a model gives: a pydantic model, or a JSON schema."""
        ...

    def ainvoke(self, input: Any, /) -> Awaitable[Any]:
        """Answer a call."""
        ...


def is_langchain(given: object) -> TypeGuard[LangChainTool]:
    """True for one of LangChain's tools."""
    return all(hasattr(given, name) for name in ("name", "description", "args_schema", "ainvoke"))


def from_langchain(theirs: LangChainTool) -> FunctionTool:
    """A tool that calls a LangChain tool: its name, description and arguments, without those that
    are injected. Its own error handling comes first; the text of its content is the result.
    """

    async def call(**arguments: Any) -> ToolResult:
        id = uuid.uuid4().hex
        asked = {"type": "tool_call", "id": id, "name": theirs.name, "args": arguments}
        message = await theirs.ainvoke(asked)
        failed = getattr(message, "status", "success") == "error"
        text = _text(getattr(message, "content", message))
        return ToolResult(text, ErrorKind.EXCEPTION if failed else None)

    schema = theirs.tool_call_schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        schema = _checked_there(schema if isinstance(schema, dict) else schema.schema())
    name = re.sub(r"\W", "_", theirs.name, flags=re.ASCII)
    return FunctionTool(call, name=name, description=theirs.description, arguments=schema)


def _checked_there(schema: dict[str, Any]) -> type[BaseModel]:
    """A model with that JSON schema which takes any object: the tool itself checks it."""

    class Arguments(BaseModel):
        model_config = ConfigDict(extra="allow")

        @classmethod
        def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
            return schema

    return Arguments


def _text(content: Any) -> str:
    """The text of a message: blocks that are not text are shown as JSON."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else [content]
    parts = (
        block
        if isinstance(block, str)
        else block["text"]
        if isinstance(block, dict) and isinstance(block.get("text"), str)
        else json.dumps(block, default=str)
        for block in blocks
    )
    return "\n".join(parts)
