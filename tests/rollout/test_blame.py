"""Code that breaks its own session is scored, and gets no fresh try: through the real runner."""

import asyncio
import re

import pytest
from doubles import NANO, code

from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.policy import Policy
from interlace.rollout.runner import Runner
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import PythonTool
from interlace.tools.errors import ToolUnavailable
from interlace.train.rewards.checker import Checker

END = "os._exit(0)"
HERE = "import os; here = os.getcwd(); os.chdir('/')\n"
BREAKS = {
    "file": f"{HERE}os.rename(here, here + 'x'); open(here, 'w').close(); {END}",
    "link": f"{HERE}os.rename(here, here + 'x'); os.symlink('/usr', here); {END}",
    "closed": f"{HERE}os.chmod(here, 0); {END}",
    "gone": f"{HERE}os.rmdir(here); os.chmod(os.path.dirname(here), 0o500); {END}",
    "above": f"{HERE}os.chmod(os.path.dirname(here), 0); {END}",
    "full": f"{HERE}f = open(here + '/f', 'wb')\n"
    f"try:\n  while True: f.write(bytes(1 << 20)); f.flush()\nexcept OSError: {END}",
    "unknown signal": "import os; os.kill(os.getpid(), 40)",
    "name": "import os, ctypes; ctypes.CDLL(None).prctl(15, b'\\x9f\\n)PPid:', 0, 0, 0)\n" + END,
}
KERNELS = {
    "odd error": """
kernel = get_ipython().kernel
for content in ({"ename": 1, "evalue": [], "traceback": 5}, {"traceback": None}):
    kernel.session.send(kernel.iopub_socket, "error", content, parent=kernel.get_parent())
""",
    "shadow": "import os; open('ipykernel.py', 'w').write('import os; os._exit(3)'); " + END,
}
TRIALS = [
    *(("sandbox", tier, each) for tier in ("full", "confined") for each in BREAKS.values()),
    *(("jupyter", "full", each) for each in (*BREAKS.values(), *KERNELS.values())),
]


def roll(tool: PythonTool, breaks: list[str]) -> tuple[list[Episode], list[int], Runner]:
    """Each breaks its session, runs one more cell, and answers with what that gave and 1 more."""
    tokenizer = Tokenizer.load(NANO)
    asked = [0] * len(breaks)

    def script(request: Request) -> Reply:
        context = tokenizer.decode(request.ids)
        number = int(re.findall(r"trial (\d+)", context)[-1])
        asked[number] += 1
        said = context.rpartition("trial")[2].count("</interpreter>")
        if said < 2:
            return code(breaks[number] if said == 0 else "6 * 7")
        found = re.findall(r"<interpreter>\n(.*?)\n</interpreter>", context, re.DOTALL)[-1]
        return f"<answer>\\boxed{{{found.splitlines()[-1]}1}}</answer>"

    policy = Policy(ScriptedEngine(tokenizer, script), FORMATS["retool"], [tool])
    tasks = [Task(str(n), f"trial {n}", "42") for n in range(len(breaks))]
    runner = Runner(policy, retries=2, concurrency=4)

    async def go() -> list[Episode]:
        async with tool:
            return [episode async for episode in runner.run(tasks)]

    episodes = asyncio.run(go())
    return sorted(episodes, key=lambda each: int(each.task.id)), asked, runner


@pytest.mark.parametrize(
    ("backend", "tier"), [("sandbox", "full"), ("sandbox", "confined"), ("jupyter", "full")]
)
def test_code_that_breaks_its_own_session_is_scored_and_gets_no_fresh_try(
    backend: str, tier: str
) -> None:
    breaks = [each for kind, walls, each in TRIALS if (kind, walls) == (backend, tier)]
    try:
        episodes, asked, runner = roll(PythonTool(backend, isolation=tier), breaks)
    except ToolUnavailable as error:
        pytest.skip(str(error))
    with Checker() as checker:
        for episode, text, times in zip(episodes, breaks, asked, strict=True):
            outputs = [call.output for call in episode.trajectory.calls]
            assert episode.stop is StopReason.ANSWERED, (text, episode.error, outputs)
            assert episode.answer == "421", (text, outputs)
            assert checker.sign(episode, episode.task) == -1.0
            assert times == 3, text
    assert runner.traffic.figures()["retried"] == 0
