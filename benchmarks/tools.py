"""The Python sandbox beside ipykernel, measured in the same run: `python benchmarks/tools.py`.

Medians, with the fastest in brackets: on a busy machine the fastest says more about the code.
The peer is a plain ipykernel driven through jupyter_client, over ipc, as its documentation shows.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interlace.tools import PythonTool
from interlace.tools.python import PythonSession

WARM_UP = "import numpy, sympy; 1 + 1"
STATE = "import numpy; state = numpy.random.rand(100_000_000 // 8); len(state)"


def row(what: str, unit: str, samples: list[float], target: str, peer: list[float] | None) -> None:
    """Print one line of the table."""

    def shown(values: list[float] | None) -> str:
        if not values:
            return "-"
        return f"{statistics.median(values):.4g} [{min(values):.4g}]"

    print(f"{what:<44} {unit:<5} {shown(samples):>18} {target:>8} {shown(peer):>18}", flush=True)


def proportional(pid: int) -> float:
    """The process's memory in MB, pages that are shared counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def ours() -> Iterator[int]:
    """The sandbox's processes."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"_interlace" in (folder / "cmdline").read_bytes():
                yield int(folder.name)
        except OSError:
            continue


async def timed(work: Callable[..., Awaitable[object]], *arguments: object) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await work(*arguments)
    return 1e3 * (time.perf_counter() - start)


async def call(session: Any, code: str) -> str:
    """A call that must succeed."""
    result = await session.call({"code": code}, 120)
    if not result.ok:
        raise RuntimeError(result.text)
    return str(result.text)


class Peer:
    """An ipykernel and the client that drives it."""

    def __init__(self) -> None:
        from jupyter_client.manager import AsyncKernelManager

        self.folder = tempfile.TemporaryDirectory()  # or all kernels have the same sockets
        self.manager = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",
            connection_file=f"{self.folder.name}/kernel.json",
        )

    async def start(self) -> None:
        """Until it answers."""
        await self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=120)

    async def run(self, code: str) -> None:
        """One cell and all its output."""
        reply = await self.client.execute_interactive(
            code, timeout=120, output_hook=lambda message: None
        )
        if reply["content"]["status"] != "ok":
            raise RuntimeError(str(reply["content"]))

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return int(getattr(self.manager.provisioner, "pid"))  # noqa: B009 (its type has none)

    async def stop(self) -> None:
        """Kill it."""
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)
        self.folder.cleanup()


@contextmanager
def quiet() -> Iterator[None]:
    """jupyter_client warns of what does not matter here."""
    import logging

    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


async def measure_peer(times: int) -> dict[str, list[float]]:
    """The same figures of an ipykernel; for those of many sessions, of `times` kernels at once."""
    start, trip = [], []
    for _ in range(times):
        peer = Peer()

        async def first(peer: Peer = peer) -> None:
            await peer.start()
            await peer.run(WARM_UP)

        start.append(await timed(first))
        trip += [await timed(peer.run, "1 + 1") for _ in range(60)][10:]
        await peer.stop()
    peers = [Peer() for _ in range(times)]

    async def ready(peer: Peer) -> None:
        await peer.start()
        await peer.run(WARM_UP)

    opened = await timed(asyncio.gather, *(ready(peer) for peer in peers))
    memory = [proportional(peer.pid) for peer in peers]
    called = await timed(asyncio.gather, *(peer.run("1 + 1") for peer in peers))
    for peer in peers:
        await peer.stop()
    rates = {"opened": [1e3 * times / opened], "called": [1e3 * times / called]}
    return {"start": start, "trip": trip, "memory": memory, **rates}


async def measure_sessions(tool: PythonTool, peer: dict[str, list[float]]) -> None:
    """Start, round trip, copies."""
    start = []
    for _ in range(30):
        begin = time.perf_counter()
        async with tool.session() as session:
            await call(session, WARM_UP)
            start.append(1e3 * (time.perf_counter() - begin))
    row("session to first result (numpy, sympy)", "ms", start, "20", peer["start"])
    async with tool.session() as session:
        trip = [await timed(call, session, "1 + 1") for _ in range(600)][100:]
        row("call round trip", "ms", trip, "0.5", peer["trip"])
        rate = [1e3 / value for value in trip]
        row("calls per second, one session", "/s", rate, "", [1e3 / t for t in peer["trip"]])
        for code in ("1", STATE):
            await call(session, code)
            forks: list[float] = []
            for _ in range(15):
                copies: list[PythonSession] = []

                async def copy(copies: list[PythonSession] = copies) -> None:
                    assert isinstance(session, PythonSession)
                    copies.append(await session.fork())

                forks.append(await timed(copy))
                await copies[0].close()
            size = "nothing" if code == "1" else "100 MB of state"
            row(f"fork() with {size}", "ms", forks, "15", None)


async def measure_many(tool: PythonTool, count: int, peer: dict[str, list[float]]) -> None:
    """Many sessions at once: how fast they come, and what they hold."""
    managers = [tool.session() for _ in range(count)]
    begin = time.perf_counter()

    async def one(manager: Any, number: int) -> Any:
        session = await manager.__aenter__()
        assert await call(session, f"import numpy, sympy; x = {number}; x + 1") == str(number + 1)
        return session

    sessions = await asyncio.gather(*(one(m, n) for n, m in enumerate(managers)))
    seconds = time.perf_counter() - begin
    rate = [count / seconds]
    row(f"sessions per second, {count} opened together", "/s", rate, "", peer["opened"])
    processes = [proportional(pid) for pid in ours()]
    per_session = [sum(processes) / count]
    row(f"PSS per session, {count} idle (all processes)", "MB", per_session, "5", peer["memory"])
    begin = time.perf_counter()
    values = await asyncio.gather(*(call(session, "x") for session in sessions))
    assert values == [str(number) for number in range(count)]
    rate = [count / (time.perf_counter() - begin)]
    row(f"calls per second over {count} sessions", "/s", rate, "", peer["called"])
    begin = time.perf_counter()
    await asyncio.gather(*(manager.__aexit__(None, None, None) for manager in managers))
    row(f"closing {count} sessions", "s", [time.perf_counter() - begin], "", None)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500, help="live sessions at once")
    parser.add_argument("--peers", type=int, default=5, help="ipykernels to measure")
    parser.add_argument("--isolation", default="auto")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f} at the start")
    with quiet():
        peer = await measure_peer(options.peers)
        begin = time.perf_counter()
        async with PythonTool(isolation=options.isolation) as tool:
            ready = 1e3 * (time.perf_counter() - begin)
            async with tool.session() as session:
                tier = (await session.call({"code": "1"}, 60)).details["isolation"]
            print(f"isolation: {tier}; the peer has none")
            print(f"{'':<44} {'':<5} {'sandbox':>18} {'target':>8} {'ipykernel':>18}")
            row("zygote ready, once (walls proved)", "ms", [ready], "", None)
            await measure_sessions(tool, peer)
            await measure_many(tool, options.sessions, peer)


if __name__ == "__main__":
    asyncio.run(main())
