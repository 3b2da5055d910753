"""The Python sandbox beside ipykernel, measured in the same run: `python benchmarks/tools.py`.

Medians, with the fastest in brackets: on a busy machine the fastest says more about the code.
The peer is a plain ipykernel driven through jupyter_client, over ipc, as its documentation shows.
A kernel can't be copied: the other way to a branch is to run the cells again in a new session or
kernel, as rStar2-Agent does, and both are measured.

    python benchmarks/tools.py --pages      where the memory of a session lies
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from interlace.tools import PythonTool
from interlace.tools.python import PythonSession
from interlace.tools.python.processes import children, descendants

WARM_UP = "import numpy, sympy; 1 + 1"
STATES = {
    "nothing": "1",
    "10 MB of arrays": "import numpy; state = numpy.random.rand(1_250_000); len(state)",
    "100 MB of arrays": "import numpy; state = numpy.random.rand(12_500_000); len(state)",
    "100 MB of objects": "state = [0.5 * number for number in range(3_100_000)]; len(state)",
}
BRANCHES = 20
KINDS = ("small objects", "heap", "interpreter's data", "libraries' data", "other")


def row(what: str, unit: str, samples: list[float], target: str, peer: list[float] | None) -> None:
    """Print one line of the table."""

    def shown(values: list[float] | None) -> str:
        if not values:
            return "-"
        return f"{statistics.median(values):.4g} [{min(values):.4g}]"

    print(f"{what:<44} {unit:<5} {shown(samples):>18} {target:>8} {shown(peer):>18}", flush=True)


def proportional(pid: int) -> float:
    """The process's memory in MB, pages that are shared counted in parts."""
    with suppress(OSError):  # it may just have ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def private(pid: int) -> dict[str, float]:
    """The process's own pages, in MB, by what they hold."""
    found = dict.fromkeys(KINDS, 0.0)
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            kind = kind_of(Path(rest[4]).name if len(rest) > 4 else "")
        elif first == "Private_Dirty:":
            found[kind] += int(rest[0]) / 1024
    return found


def kind_of(mapped: str) -> str:
    """What an area of memory holds, from the name of what is mapped there."""
    if mapped in ("", "[heap]"):
        return "heap" if mapped else "small objects"
    if mapped.startswith(("libpython", "python")):
        return "interpreter's data"
    return "libraries' data" if ".so" in mapped else "other"


def held() -> float:
    """The memory of all processes of the sandbox, which are those below this one, in MB."""
    return sum(map(proportional, descendants(os.getpid())))


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
    again: dict[str, list[float]] = {name: [] for name in STATES}
    for _ in range(times):
        peer = Peer()

        async def first(peer: Peer = peer) -> None:
            await peer.start()
            await peer.run(WARM_UP)

        start.append(await timed(first))
        trip += [await timed(peer.run, "1 + 1") for _ in range(60)][10:]
        for name, code in STATES.items():
            again[name].append(start[-1] + await timed(peer.run, code))
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
    return {"start": start, "trip": trip, "memory": memory, **rates, **again}


async def measure_sessions(tool: PythonTool, peer: dict[str, list[float]]) -> None:
    """Start, round trip, copies."""
    start = []
    for _ in range(30):
        begin = time.perf_counter()
        async with tool.session() as session:
            await call(session, WARM_UP)
            start.append(1e3 * (time.perf_counter() - begin))
    row("session to first result (numpy, sympy)", "ms", start, "15", peer["start"])
    async with tool.session() as session:
        trip = [await timed(call, session, "1 + 1") for _ in range(600)][100:]
        row("call round trip", "ms", trip, "0.4", peer["trip"])
        rate = [1e3 / value for value in trip]
        row("calls per second, one session", "/s", rate, "", [1e3 / t for t in peer["trip"]])
    for name, code in STATES.items():
        await measure_branches(tool, name, code, peer[name])


async def measure_branches(tool: PythonTool, name: str, code: str, peer: list[float]) -> None:
    """Copies of a session with some state: what one takes, and holds; and the cells run again."""
    forks, again = [], []
    async with tool.session() as session:
        assert isinstance(session, PythonSession)
        await call(session, WARM_UP)
        await call(session, code)
        for _ in range(15):
            begin = time.perf_counter()
            copy = await session.fork()
            forks.append(1e3 * (time.perf_counter() - begin))
            await copy.close()
        row(f"fork() with {name}", "ms", forks, "5" if "100" in name else "", None)
        before = held()
        copies = [await session.fork() for _ in range(BRANCHES)]
        each = [(held() - before) / BRANCHES]
        row(f"  memory of each of {BRANCHES} copies (PSS)", "MB", each, "2", None)
        for copy in copies:
            await call(copy, "x = 1; x + 1")
        each = [(held() - before) / BRANCHES]
        row("  the same after a call in each", "MB", each, "", None)
        for copy in copies:
            await copy.close()
    for _ in range(5):
        begin = time.perf_counter()
        async with tool.session() as session:
            await call(session, WARM_UP)
            await call(session, code)
            again.append(1e3 * (time.perf_counter() - begin))
    row("  a new session, the cells run again", "ms", again, "", peer)


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
    per_session = [held() / count]
    row(f"PSS per session, {count} idle (all processes)", "MB", per_session, "5", peer["memory"])
    begin = time.perf_counter()
    values = await asyncio.gather(*(call(session, "x") for session in sessions))
    assert values == [str(number) for number in range(count)]
    rate = [count / (time.perf_counter() - begin)]
    row(f"calls per second over {count} sessions", "/s", rate, "", peer["called"])
    begin = time.perf_counter()
    await asyncio.gather(*(manager.__aexit__(None, None, None) for manager in managers))
    row(f"closing {count} sessions", "s", [time.perf_counter() - begin], "", None)


async def measure_pages(tool: PythonTool, count: int) -> None:
    """Where the pages that a session has for itself alone are, by process and by what they hold."""

    def print_row(what: str, pids: list[int]) -> None:
        each = [private(pid) for pid in pids]
        means = [statistics.mean(one[kind] for one in each) for kind in KINDS]
        values = "".join(f"{value:>20.2f}" for value in (*means, sum(means)))
        print(f"{what:<28}{values}", flush=True)

    print(f"{f'MB, means of {count}':<28}" + "".join(f"{kind:>20}" for kind in (*KINDS, "all")))
    managers = [tool.session() for _ in range(count)]
    sessions = [await manager.__aenter__() for manager in managers]
    for session in sessions:
        assert isinstance(session, PythonSession)
        await session.ready()
    keepers = [pid for zygote in children(os.getpid()) for pid in children(zygote)]
    workers = [pid for keeper in keepers for pid in children(keeper)]
    print_row("worker, nothing run yet", workers)
    for session in sessions:
        await call(session, WARM_UP)
    print_row("worker, one cell run", workers)
    print_row("its supervisor", keepers)
    copies = [await session.fork() for session in sessions if isinstance(session, PythonSession)]
    branches = [pid for keeper in keepers for pid in children(keeper) if pid not in workers]
    print_row("copy, nothing run yet", branches)
    for copy in copies:
        await call(copy, WARM_UP)
    print_row("copy, one cell run", branches)
    for copy in copies:
        await copy.close()
    for manager in managers:
        await manager.__aexit__(None, None, None)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=500, help="live sessions at once")
    parser.add_argument("--peers", type=int, default=5, help="ipykernels to measure")
    parser.add_argument("--isolation", default="auto")
    parser.add_argument("--pages", action="store_true", help="only where a session's pages are")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f} at the start")
    if options.pages:
        async with PythonTool(isolation=options.isolation) as tool:
            await measure_pages(tool, BRANCHES)
        return
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
