"""A web service with FastAPI: one agent in each worker answers all who ask it at the same time.

    pip install -c constraints/dev.txt ".[local]" fastapi uvicorn
    uvicorn service:app --app-dir examples --workers 4

Without uvicorn, as `python examples/service.py`, it is its own client too: it starts such a server,
asks it `--requests` questions, leaves every third before its answer, and counts both kinds.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from interlace import Agent
from interlace.agent import Done
from interlace.rollout.events import CallFinished, PolicyText

agent = Agent()
counts: Counter[str] = Counter()
"""The questions of this worker, by how they ended."""


class Question(BaseModel):
    """The body of a request."""

    question: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model and start the sandbox before the first request; free them at the end."""
    async with agent:
        await asyncio.gather(agent.policy(), agent.start_tools())
        yield
    print(json.dumps({"worker": os.getpid(), **counts}), flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, int]:
    """The worker that answers, and its counts."""
    return {"worker": os.getpid(), **counts}


@app.post("/ask")
async def ask(asked: Question, request: Request) -> dict[str, Any] | None:
    """The whole result. A client that leaves stops the model and its tools."""
    answering = asyncio.create_task(agent.run(asked.question))
    leaving = asyncio.create_task(left(request))
    await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not answering.done():
        answering.cancel()
        await asyncio.wait({answering})
        counts["left"] += 1
        return None
    result = answering.result()
    counts[result.stop.value] += 1
    return result.to_dict()


async def left(request: Request) -> None:
    """Wait until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@app.post("/stream")
async def stream(asked: Question) -> StreamingResponse:
    """The model's words and its tools' output as server-sent events, and the result as the last.

    A client that leaves closes the generator, and so stops the model and its tools.
    """

    async def events() -> AsyncIterator[str]:
        try:
            async with agent.stream(asked.question) as run:
                async for event in run:
                    match event:
                        case PolicyText(text):
                            yield f"data: {json.dumps({'text': text})}\n\n"
                        case CallFinished(call):
                            yield f"data: {json.dumps({'output': call.output})}\n\n"
                        case Done(result):
                            counts[result.stop.value] += 1
                            yield f"data: {json.dumps({'result': result.to_dict()})}\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            counts["left"] += 1
            raise

    return StreamingResponse(events(), media_type="text/event-stream")


# -- the clients -----------------------------------------------------------------------------------


async def answer_of(client: httpx.AsyncClient, number: int) -> str:
    """What became of one request; every third client leaves before its answer."""
    crates = 20 + number % 30
    question = f"A crate holds 43 bolts. How many bolts are in {crates} crates?"
    leaves, streams = number % 3 == 2, number % 2 == 1
    try:
        if leaves and not streams:
            await send_and_leave(client, {"question": question})
            return "left"
        if not streams:
            result = (await client.post("/ask", json={"question": question})).json()
        else:
            async with client.stream("POST", "/stream", json={"question": question}) as reply:
                async for line in reply.aiter_lines():
                    if line.startswith("data: "):
                        data = json.loads(line.removeprefix("data: "))
                        if leaves:
                            return "left"
                        result = data.get("result")
    except httpx.HTTPError as error:
        return type(error).__name__
    if result["stop"] != "answered":
        return str(result["stop"])
    return "right" if result["answer"] == str(43 * crates) else "wrong"


async def send_and_leave(client: httpx.AsyncClient, data: dict[str, str]) -> None:
    """Close the connection as soon as the request is sent."""
    body = json.dumps(data).encode()
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = f"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()


async def main(workers: int, requests: int, at_once: int) -> None:
    """Start the server, be its clients, stop it, and say how it went."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "service:app", "--app-dir", Path(__file__).parent),
        *("--port", str(port), "--workers", str(workers), "--log-level", "warning"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    room = asyncio.Semaphore(at_once)

    async def one(client: httpx.AsyncClient, number: int) -> str:
        async with room:
            return await answer_of(client, number)

    try:
        address = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=address, timeout=600, trust_env=False) as client:
            seen: set[int] = set()
            while len(seen) < workers:
                try:
                    reply = await client.get("/health", headers={"connection": "close"})
                    seen.add(reply.json()["worker"])
                except httpx.ConnectError:
                    if server.returncode is not None:
                        sys.exit("the server has ended; is uvicorn installed?")
                    await asyncio.sleep(0.2)
            start = time.monotonic()
            ended = await asyncio.gather(*(one(client, number) for number in range(requests)))
            seconds = time.monotonic() - start
    finally:
        with suppress(ProcessLookupError):
            server.send_signal(signal.SIGTERM)
        said, _ = await server.communicate()
    total: Counter[str] = Counter()
    for line in said.decode().splitlines():
        worker = json.loads(line)
        print(f"worker {worker.pop('worker')}: {worker}", file=sys.stderr)
        total.update(worker)
    print(f"{requests} requests to {workers} workers in {seconds:.1f} s", file=sys.stderr)
    print("clients:", dict(sorted(Counter(ended).items())))
    print("workers:", dict(sorted(total.items())), "exit code", server.returncode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=32)
    given = parser.parse_args()
    asyncio.run(main(given.workers, given.requests, given.at_once))
