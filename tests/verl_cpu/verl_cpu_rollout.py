"""Our transformers engine as a rollout of verl's: a server, and who sends it weights."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from typing import Any

import ray
import torch
from support.verl_client import EngineClient
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.engines.local.load_checkpoint import load_model
from interlace.rollout.models.files import find_model
from interlace.rollout.tokenizer import Tokenizer


class Server:
    """What verl calls of a rollout server.

    Each new set of weights is noted in $INTERLACE_TEST_SYNCED.
    """

    def __init__(self, model: str) -> None:
        torch.set_num_threads(1)
        folder = find_model(model)
        self.model: Any = load_model(folder, torch.device("cpu"), "float32")
        self.engine = TransformersEngine(self.model, Tokenizer.load(folder), max_batch=16)
        self.step: int | None = None
        self.sleeping = False
        self.admits = asyncio.Event()
        self.admits.set()
        self.under_way = self.aborted = 0

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, **_: Any
    ) -> TokenOutput:
        await self.admits.wait()
        assert not self.sleeping, "asked to sample while it sleeps"
        client = EngineClient(
            self.engine, steps=[self.step or 0], aborts=lambda: not self.admits.is_set()
        )
        self.under_way += 1
        try:
            output = await client.generate(
                request_id, prompt_ids=list(prompt_ids), sampling_params=sampling_params
            )
        finally:
            self.under_way -= 1
        self.aborted += output.stop_reason == "aborted"
        await self.engine.release(request_id)
        return TokenOutput(**vars(output))

    async def load_weights(self, named: dict[str, torch.Tensor], step: int | None) -> None:
        state = dict(self.model.state_dict())
        assert named.keys() <= state.keys(), named.keys() - state.keys()
        changed = sum(float((state[key] - value).abs().sum()) for key, value in named.items())
        await self.engine.update_weights({**state, **named})
        self.step = step
        with open(os.environ["INTERLACE_TEST_SYNCED"], "a", encoding="utf-8") as file:
            note = {"step": step, "tensors": len(named), "changed": changed}
            note["aborted"] = self.aborted
            file.write(json.dumps(note) + "\n")

    async def wake_up(self, tags: list[str] | None = None) -> None:
        self.sleeping = False

    async def sleep(self, *_: Any, **__: Any) -> None:
        self.sleeping = True

    async def set_global_steps(self, step: int) -> None:
        self.step = step

    async def clear_kv_cache(self) -> None: ...

    async def release_kv_cache(self) -> None: ...

    async def resume_kv_cache(self) -> None: ...

    async def abort_all_requests(self, **_: Any) -> None:
        self.admits.clear()
        while self.under_way:
            await asyncio.sleep(0.01)

    async def resume_generation(self) -> None:
        self.admits.set()

    async def start_profile(self, **_: Any) -> None: ...

    async def stop_profile(self) -> None: ...


def _name(rank: int) -> str:
    return f"transformers_server_{rank}"


class Replica(RolloutReplica):  # type: ignore[misc]
    """One server in an actor of its own."""

    async def launch_servers(self) -> None:
        options = {"name": _name(self.replica_rank), "num_cpus": 0}
        actor = ray.remote(Server).options(**options, max_concurrency=self.max_concurrency)
        self._server_handle = actor.remote(self.model_config.path)
        self.servers = [self._server_handle]
        self._server_address = f"ray://{_name(self.replica_rank)}"

    async def abort_all_requests(self, **given: Any) -> None:
        await asyncio.gather(*(each.abort_all_requests.remote(**given) for each in self.servers))


class Adapter(BaseRollout):  # type: ignore[misc]
    """Lives in the trainer's process and sends its weights to the server."""

    def __init__(
        self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1, **_: Any
    ) -> None:
        super().__init__(config, model_config, device_mesh)
        self.rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank
        self.replica_rank, self.is_leader_rank = self.rank, True

    @property
    def _server(self) -> Any:
        return ray.get_actor(_name(self.rank))

    async def resume(self, tags: list[str]) -> None:
        await self._server.wake_up.remote(tags=tags)

    async def release(self) -> None:
        await self._server.sleep.remote()

    async def update_weights(
        self,
        weights: AsyncGenerator[tuple[str, torch.Tensor], None],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        assert wire_format == "named_tensors"
        named = {}
        async for name, value in ensure_async_iterator(weights):
            named[name] = value.detach().cpu().clone()
        await self._server.load_weights.remote(named, global_steps)
