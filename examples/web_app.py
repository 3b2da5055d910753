"""Inside an asyncio server: one agent answers all who ask at the same time.

A server as small as it can be; in a framework of yours, the handler's three lines are the same.
"""

import asyncio
import json

from interlace import Agent

QUESTIONS = [f"A crate holds {n} bolts. How many bolts are in 29 crates?" for n in (43, 44, 45)]


async def main() -> None:
    """Serve, and be the clients too."""
    async with Agent() as agent:

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            question = json.loads(await reader.readline())["question"]
            result = await agent.run(question)
            writer.write(json.dumps({"answer": result.answer, "stop": result.stop}).encode())
            writer.close()

        async def ask(question: str) -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(json.dumps({"question": question}).encode() + b"\n")
            reply = json.loads(await reader.read())
            writer.close()
            return f"{reply['answer']} ({reply['stop']})"

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for reply in await asyncio.gather(*map(ask, QUESTIONS)):
                print(reply)


asyncio.run(main())
