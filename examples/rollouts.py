"""What a trainer needs: eight attempts at a task, logged with every token, read back."""

import asyncio
import tempfile
from pathlib import Path

from interlace import Agent, Sampling, Task
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.many.runner import Runner
from interlace.rollout.task import equal_answers


async def roll_out(task: Task, file: Path) -> None:
    """Log eight attempts, each as soon as it is finished."""
    async with Agent(sampling=Sampling(temperature=1.0)) as agent:
        runner = Runner(await agent.policy())
        with EpisodeLog(file) as log:
            async for episode in runner.run([task], n=8, seed=0):
                log.append(episode)


with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "t.jsonl")
    task = Task("bolts", "A crate holds 43 bolts. How many bolts are in 29 crates?", "1247")
    asyncio.run(roll_out(task, file))
    for episode in sorted(read_episodes(file), key=lambda episode: episode.sample):
        right = equal_answers(episode.answer or "", task.answer or "")
        ledger = episode.trajectory.ledger
        # One letter a span: p(rompt), P(olicy, trained), t(ool), h(ost); and how long it is.
        spans = [
            f"{'P' if span.weight else span.source.value[0]}{len(span)}" for span in ledger.spans
        ]
        logprob = float(ledger.logprobs[ledger.response_mask].sum())
        print(f"{episode.id}  {'right' if right else 'wrong'}  {' '.join(spans)}  {logprob:.2f}")
