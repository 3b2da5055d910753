"""Weights from a trainer to an engine elsewhere, through a file: a checkpoint engine for tests.

Those of verl need a GPU: nccl wants cupy, and so does nixl; mooncake and kimi want their libraries.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import torch
from verl.checkpoint_engine import CheckpointEngine, CheckpointEngineRegistry


@CheckpointEngineRegistry.register("file")
class FileEngine(CheckpointEngine):  # type: ignore[misc]
    """One sender, any number of receivers, on one machine."""

    def __init__(self, bucket_size: int, is_master: bool = False) -> None:
        self.sends = is_master

    def prepare(self) -> dict[str, Any]:
        return {}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict[str, Any]]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        actors, rollouts = list(range(actor_wg_world_size)), list(range(rollout_world_size))
        return {"rank": list(actors)}, {"rank": list(rollouts)}

    def init_process_group(self, rank: int) -> None:
        pass

    def finalize(self) -> None:
        pass

    async def send_weights(self, weights: Any, global_steps: int | None = None) -> None:
        named = {name: value.detach().cpu() for name, value in weights}
        if self.sends:
            partial = _file(global_steps).with_suffix(".partial")
            torch.save(named, partial)
            partial.rename(_file(global_steps))

    async def receive_weights(
        self, global_steps: int | None = None
    ) -> AsyncGenerator[tuple[str, torch.Tensor], None]:
        while not _file(global_steps).exists():
            await asyncio.sleep(0.1)
        for name, value in torch.load(_file(global_steps)).items():
            yield name, value


def _file(step: int | None) -> Path:
    return Path(os.environ["INTERLACE_TEST_SYNCED"]).with_name(f"weights-{step}.pt")
