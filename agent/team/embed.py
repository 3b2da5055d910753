"""A team's use of LangGraph outside its graph: checkpoints, streams, tools."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tools import StartedSession, Tool, ToolSession
from ...tools.errors import MissingExtra
from ..events import AgentEvent

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

__all__ = ["langgraph_tools", "saver", "tell_graph"]


@asynccontextmanager
async def saver(path: Path) -> "AsyncIterator[AsyncSqliteSaver]":
    """LangGraph's SQLite saver on a file, which lets nothing but plain data in. MissingExtra."""
    try:
        import aiosqlite
        from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    except ImportError as error:
        raise MissingExtra("a team that is kept", "team") from error
    async with aiosqlite.connect(path) as connection:
        yield AsyncSqliteSaver(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))


def tell_graph(event: AgentEvent[Any]) -> bool:
    """Into the stream of the graph that runs (mode "custom"); nobody can be asked there."""
    from langgraph.config import get_stream_writer

    get_stream_writer()(event)
    return False


@asynccontextmanager
async def langgraph_tools(
    tools: Sequence[Tool], *, seconds: float = 10.0
) -> "AsyncIterator[list[StructuredTool]]":
    """Our tools as LangGraph's, for a `ToolNode` say; their sessions end with the context.

    Each has one session, opened at its first call: variables live from call to call. A call may
    take `seconds`; what went wrong comes back as text, as the model should read it. Raises
    MissingExtra.

    Example:
        async with langgraph_tools([PythonTool()]) as tools:
            node = ToolNode(tools)
    """
    try:
        from langchain_core.tools import StructuredTool
    except ImportError as error:
        raise MissingExtra("tools for LangGraph", "team") from error

    async with AsyncExitStack() as stack:

        def adapted(tool: Tool) -> StructuredTool:
            sessions: list[ToolSession] = []

            async def call(**arguments: Any) -> str:
                if not sessions:
                    sessions.append(await stack.enter_async_context(tool.session()))
                session = sessions[0]
                if isinstance(session, StartedSession):
                    await session.ready()
                return (await session.call(arguments, seconds)).text

            return StructuredTool.from_function(
                coroutine=call,
                name=tool.name,
                description=tool.description,
                args_schema=tool.arguments,
            )

        yield [adapted(tool) for tool in tools]
