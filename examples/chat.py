"""A conversation in a few lines: the model's context and the Python state live on.

Each line of stdin is a question. (`interlace chat` does the same with line editing.)
"""

import asyncio
import sys

from interlace import Agent


async def main() -> None:
    """Answer line by line."""
    async with Agent() as agent, agent.conversation() as conversation:
        for line in sys.stdin:
            result = await conversation.ask(line.strip())
            print(result.answer if result.answer is not None else f"no answer ({result.stop})")


asyncio.run(main())
