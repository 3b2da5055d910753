"""Ask the bundled model a question: it writes Python, the code is run, it answers."""

from interlace import Agent

with Agent() as agent:
    result = agent.run_sync("A crate holds 4387 bolts. How many bolts are in 296 crates?")
    print(result.answer, f"({result.usage.calls} call, {result.usage.tokens} tokens)")
