"""verl's client, played by an engine of ours: what verl's own would give back."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import numpy as np

from interlace.rollout.engines import Engine, Request, Sampling


class EngineClient:
    """Speaks `generate` as verl's LLMServerClient does, and samples from an engine.

    `steps` are verl's global steps at each request; the last one stays. `more` is appended to what
    a request gives: a server may check stop strings less often than once a token. A request is
    broken off, with what it has, as soon as `aborts` says so.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        steps: Sequence[int] = (0,),
        more: Sequence[int] = (),
        aborts: Callable[[], bool] = lambda: False,
    ) -> None:
        self._aborts = aborts
        self.engine = engine
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.prompts: list[list[int]] = []
        self._steps = list(steps)
        self._more = list(more)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        self.asked.append((request_id, dict(sampling_params)))
        self.prompts.append(prompt_ids)
        step = self._steps[min(len(self.asked), len(self._steps)) - 1]
        assert sampling_params["include_stop_str_in_output"]
        request = Request(
            ids=np.array(prompt_ids, np.int32),
            max_tokens=sampling_params["max_tokens"],
            sampling=Sampling(
                temperature=sampling_params["temperature"],
                top_p=sampling_params["top_p"],
                top_k=max(0, sampling_params["top_k"]),
                seed=sampling_params.get("seed"),
            ),
            stop=tuple(sampling_params["stop"]),
            context=request_id,
        )
        ids: list[int] = []
        reason = "completed"
        logprobs: list[float] = []
        async with aclosing(self.engine.generate(request)) as chunks:
            async for chunk in chunks:
                ids += chunk.ids
                logprobs += chunk.logprobs or ()
                if chunk.finish is None and self._aborts():
                    reason = "aborted"
                    break
        ids, logprobs = ids + self._more, logprobs + [-1.0] * len(self._more)
        return SimpleNamespace(
            token_ids=ids,
            log_probs=logprobs,
            stop_reason=reason,
            num_preempted=None,
            extra_fields={
                "global_steps": step,
                "min_global_steps": step,
                "max_global_steps": step,
                "num_cached_tokens": None,
            },
        )


class BrokenClient:
    """Fails or breaks off the first `times` requests, then asks another client."""

    def __init__(self, client: EngineClient, failure: Exception | str, times: int) -> None:
        self._client, self._failure, self._left = client, failure, times

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        self._left -= 1
        if self._left < 0:
            return await self._client.generate(
                request_id, prompt_ids=prompt_ids, sampling_params=sampling_params
            )
        await asyncio.sleep(0)
        if isinstance(self._failure, Exception):
            raise self._failure
        return SimpleNamespace(
            token_ids=[], log_probs=None, stop_reason=self._failure, num_preempted=None,
            extra_fields={},
        )  # fmt: skip
