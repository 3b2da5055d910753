"""Ten thousand sessions: every one is served, in turn, and the process is what it was before."""

import asyncio
import gc
import os
import resource
from pathlib import Path

import pytest
from support.sandbox_fixtures import LIMITS

from interlace.tools import PythonTool
from interlace.tools.python.walls.users import UserIds

SESSIONS, AT_ONCE = 10_000, 1_000


def held() -> tuple[int, int, int]:
    """Descriptors, child processes (zombies too) and bytes of memory of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), len(children), pages * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
def test_ten_thousand_sessions_leave_nothing(tier: str) -> None:
    served: list[int] = []

    async def one(tool: PythonTool, number: int) -> None:
        async with tool.session() as session:
            result = await session.call({"code": f"{number} + 1"}, 60)
            assert result.text == str(number + 1)
            served.append(number)

    async def main() -> None:
        async with PythonTool(isolation=tier, sessions=16, limits=LIMITS) as tool:
            await asyncio.gather(*(one(tool, number) for number in range(200)))
            gc.collect()
            before = held()
            for start in range(200, SESSIONS, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, SESSIONS))
                await asyncio.gather(*(one(tool, number) for number in numbers))
            gc.collect()
            after = held()
            assert after[0] <= before[0] and after[1] <= before[1], (before, after)
            assert after[2] < before[2] + 10_000_000, (before, after)
            assert tool.counts.sessions == SESSIONS and not tool.counts.ends

    asyncio.run(main())
    # Fair: nobody waits for much more than those who came before and those who run beside.
    assert max(abs(at - number) for at, number in enumerate(served)) < 100


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
def test_ten_thousand_calls_of_one_session_leave_nothing_with_its_owner(tier: str) -> None:
    async def main() -> None:
        async with PythonTool(isolation=tier, limits=LIMITS) as tool, tool.session() as session:
            for number in range(10_000):
                if number == 500:
                    gc.collect()
                    before = held()
                result = await session.call(
                    {"code": f"print({number})\n1 / (x := {number % 3})"}, 60
                )
                assert result.text.startswith(str(number))
            gc.collect()
            after = held()
            assert after[:2] == before[:2] and after[2] < before[2] + 5_000_000, (before, after)

    asyncio.run(main())


def test_two_programs_that_do_not_see_each_others_locks_hardly_meet() -> None:
    """User ids of sessions: each program begins at a random one."""
    if not UserIds().exist:
        pytest.skip("there are no user ids for sessions here")
    firsts = set()
    for _ in range(50):
        users = UserIds()
        firsts.add(users.take())
        users.close()
    assert len(firsts) > 25
