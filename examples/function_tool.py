"""Any typed function is a tool. The nano model knows one tool, `python`: so that is its name here.

A model that reads tool descriptions (any with a Hermes or Qwen chat template) can be given tools of
any name and arguments in the same way: `Agent("Qwen/Qwen3-0.6B", tools=[stock, price])`.
"""

import contextlib
import io

from interlace import Agent, tool

asked: list[str] = []


@tool(name="python")
def run(code: str) -> str:
    """Run Python code and return what it prints."""
    asked.append(code)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    return printed.getvalue()


with Agent(tools=[run], format="hermes") as agent:
    result = agent.run_sync("A crate holds 4387 bolts. How many bolts are in 296 crates?")
    print(f"the function was called with {asked}")
    print(f"the answer is {result.answer}")
