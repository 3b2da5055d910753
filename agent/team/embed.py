"""A team in other graphs: as a node, its events as a stream, our tools as LangGraph's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

from ...tools import StartedSession, Tool, ToolSession
from ...tools.errors import MissingExtra, UsageError
from ..events import AgentEvent
from .state import TeamAnswer, TeamQuestion

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool
    from langgraph.graph import StateGraph

__all__ = ["langgraph_tools", "node_graph", "tell_graph"]


class TeamState(TeamQuestion, TeamAnswer):
    """The state that a team and a graph around it share."""


def node_graph(
    answer: Callable[[str, str], Awaitable[TeamAnswer]],
    wait: Callable[[Coroutine[Any, Any, Any]], Any],
) -> "StateGraph[Any, Any, Any, Any]":
    """A graph of one node, which asks `answer` the state's question under an id of its own; `wait`
    is for graphs that are called synchronously. Raises ImportError without LangGraph.

    The id is that of LangGraph's task, so a node that is retried or resumed has it again.
    """
    from langchain_core.runnables import RunnableConfig, RunnableLambda
    from langgraph.graph import END, START, StateGraph

    async def ask(state: TeamState, config: RunnableConfig) -> TeamAnswer:
        question = state.get("question")
        if not isinstance(question, str) or not question.strip():
            raise UsageError(
                f"a team is asked the text in the state's key question, not {question!r}"
            )
        place = config["configurable"]
        task = f"{place.get('thread_id', '')} {place['checkpoint_ns']}"
        return await answer(blake2b(task.encode(), digest_size=6).hexdigest(), question)

    def ask_sync(state: TeamState, config: RunnableConfig) -> TeamAnswer:
        return cast("TeamAnswer", wait(ask(state, config)))

    graph = StateGraph(TeamState, input_schema=TeamQuestion, output_schema=TeamAnswer)
    graph.add_node("team", RunnableLambda(ask_sync, ask, name="team"))
    graph.add_edge(START, "team")
    graph.add_edge("team", END)
    return graph


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

    Each has one session for each `thread_id`, opened at its first call: variables live from call to
    call, and no thread sees another's. A call may take `seconds`; what went wrong comes back as
    text, as the model should read it, with the status "error". They are called asynchronously.
    Raises MissingExtra.

    Example:
        async with langgraph_tools([PythonTool()]) as tools:
            node = ToolNode(tools)
    """
    try:
        from langchain_core.runnables import RunnableConfig
        from langchain_core.tools import StructuredTool, ToolException
    except ImportError as error:
        raise MissingExtra("tools for LangGraph", "team") from error

    async with AsyncExitStack() as stack:

        def adapted(tool: Tool) -> StructuredTool:
            sessions: dict[str | None, ToolSession] = {}
            opening = asyncio.Lock()

            async def call(config: RunnableConfig, **arguments: Any) -> str:
                thread = config.get("configurable", {}).get("thread_id")
                async with opening:
                    if thread not in sessions:
                        sessions[thread] = await stack.enter_async_context(tool.session())
                session = sessions[thread]
                if isinstance(session, StartedSession):
                    await session.ready()
                result = await session.call(arguments, seconds)
                if not result.ok:
                    raise ToolException(result.text)
                return result.text

            return StructuredTool.from_function(
                coroutine=call,
                name=tool.name,
                description=tool.description,
                args_schema=tool.arguments,
                handle_tool_error=True,
            )

        yield [adapted(tool) for tool in tools]
