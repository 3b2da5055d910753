"""A real server that is not ours: `transformers serve`, with the nano model and with SmolLM2.

It takes neither token ids nor all the fields of a chat request, has no parser of tool calls for
these models, and lists no models if the hub's cache is empty.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from support.fakes import NANO

from interlace import Agent, Limits, Sampling
from interlace.agent import Result
from interlace.rollout.models.smollm2 import smollm2_path
from interlace.rollout.trajectory import StopReason

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("fastapi") is None, reason="needs transformers[serving]"),
]
BOLTS = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
PATIENCE = 300  # seconds


@contextmanager
def serve(model: Path, folder: Path) -> Iterator[str]:
    """The address of a server of this model, with an empty cache of the hub."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                assert server.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1#{model}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(PATIENCE)


async def ask(address: str, question: str, **settings: object) -> Result:
    limits = Limits(timeout=PATIENCE, max_tokens=200)
    async with Agent(address, limits=limits, **settings) as agent:  # type: ignore[arg-type]
        return await agent.run(question)


def test_nano_calls_python_through_a_server(tmp_path: Path) -> None:
    """With tools in the request and in the prompt, and with a field that the server refuses."""
    sampling = Sampling(temperature=1.0, top_k=1)

    async def go(address: str) -> list[Result]:
        return [
            await ask(address, BOLTS),
            await ask(address, BOLTS, sampling=sampling),
            await ask(address, BOLTS, engine_options={"tools": None}),
        ]

    with serve(NANO, tmp_path) as address:
        results = asyncio.run(go(address))
    for result in results:
        (call,) = result.trajectory.calls
        assert (call.tool, call.output.strip(), call.error) == ("python", "1298552", None)
        assert result.stop is StopReason.ANSWERED
        assert not result.usage.estimated and result.usage.tokens > 20
    assert results[0].answer == "1298552"


def test_smollm2_answers_through_a_server(tmp_path: Path) -> None:
    with serve(smollm2_path(), tmp_path) as address:
        result = asyncio.run(ask(address, "Write the number 7.", tools=()))
    assert result.trajectory.error is None and not result.usage.estimated
    assert 0 < result.usage.tokens <= 200
    assert result.stop in (StopReason.ANSWERED, StopReason.LENGTH)
