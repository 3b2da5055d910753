"""Watch an answer come about: the model's words, its calls and their results, as they happen."""

import asyncio

from interlace import Agent
from interlace.agent import Done
from interlace.rollout.events import CallFinished, PolicyText


async def main() -> None:
    """Print what happens."""
    async with Agent() as agent:
        async for event in agent.stream("A shelf holds 318 books. How many are on 47 shelves?"):
            match event:
                case PolicyText(text):
                    print(text, end="", flush=True)
                case CallFinished(call):
                    print(f"\n  Python says: {call.output}")
                case Done(result):
                    print(f"\n{result.stop}: {result.answer}")


asyncio.run(main())
