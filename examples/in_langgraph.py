"""A team is a node of another graph, and our tools are LangGraph's."""

import asyncio
from typing import Any

from langchain_core.messages import AIMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from interlace import Agent, PythonTool, Team
from interlace.agent import langgraph_tools


class State(MessagesState):
    """The team needs a question and leaves an answer."""

    question: str
    answer: str | None


def check(state: State) -> dict[str, Any]:
    """Ask Python whether that is right."""
    code = f"print({state['answer']} == 4387 * 296)"
    call = {"name": "python", "args": {"code": code}, "id": "1"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


async def main() -> None:
    """Build the graph and run it once."""
    team = Team.ceo(Agent(), max_experts=2, rounds=1, tokens=(128, 512))
    async with team, langgraph_tools([PythonTool()]) as tools:
        graph = StateGraph(State)
        nodes: list[tuple[str, Any]] = [
            ("team", team.graph()),
            ("check", check),
            ("tools", ToolNode(tools)),
        ]
        graph.add_sequence(nodes)
        graph.add_edge(START, "team")
        question = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
        given = State(question=question, messages=[], answer=None)
        state = await graph.compile().ainvoke(given)
    print(state["answer"], state["messages"][-1].content)


asyncio.run(main())
