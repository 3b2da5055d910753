"""Our loop as an AgentLoop of verl 0.9: it has verl's servers sample, and nothing else differs.

verl makes one of these for each trajectory; what is worth keeping is kept once a process.
"""

import asyncio
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
)

from ...rollout.engines.base import Sampling
from ...rollout.models.files import find_model
from ...rollout.tokenizer import Tokenizer
from ...tools.errors import UsageError
from .data import from_row
from .ending import note_why
from .response import Response, to_responses
from .rules import unread
from .settings import LoopSettings, read_settings
from .worker import Lengths, LoopWorker, VerlAttempt

__all__ = ["InterlaceLoop"]

logger = logging.getLogger(__name__)


class InterlaceLoop(AgentLoopBase):  # type: ignore[misc]  # verl's classes have no types for us
    """`actor_rollout_ref.rollout.agent.default_agent_loop=interlace`; settings: `LoopSettings`."""

    _worker: ClassVar["asyncio.Task[LoopWorker] | None"] = None
    """What this process keeps; it ends with the process."""
    _failures: ClassVar[int] = 0
    """Episodes that failed on our side since the last one that did not."""

    async def run(
        self, sampling_params: dict[str, Any], **row: Any
    ) -> AgentLoopOutput | list[AgentLoopOutput]:
        """One episode, from a row of the data set to what verl trains on: for a team, a list.

        Raises EpisodeSkipped where our side failed it: verl logs it, trains on the group's others,
        and with `trainer.v1.sampler.sync_refill_failed_groups=True` replaces a group without any.
        Raises UsageError and DataError for settings and rows that make no sense.
        """
        try:
            responses = await self._respond(sampling_params, row)
        except Exception as error:
            self._note_failure(error)
            raise
        InterlaceLoop._failures = 0
        outputs = [self._output(response) for response in responses]
        return outputs[0] if len(outputs) == 1 else outputs

    def _output(self, response: Response) -> AgentLoopOutput:
        fields = asdict(response)
        fields["metrics"] = AgentLoopMetrics(**fields["metrics"])
        if not self.rollout_config.calculate_log_probs:
            fields["response_logprobs"] = None
        return AgentLoopOutput(**fields)

    async def _respond(
        self, sampling_params: dict[str, Any], row: dict[str, Any]
    ) -> list[Response]:
        worker = await self._shared()
        task, history = from_row(row, keep_instruction=worker.settings.keep_instruction)
        attempt = VerlAttempt(
            task,
            history,
            sample=int(row.get("session_id", 0)),
            step=int(row.get("global_steps", 0)),
            group=str(row.get("uid", "")),
            sampling=Sampling(
                temperature=float(sampling_params["temperature"]),
                top_p=float(sampling_params["top_p"]),
                top_k=max(0, int(sampling_params["top_k"])),
            ),
        )
        rolled = await worker.roll_out(attempt)
        return to_responses(rolled, without_void_turns=worker.settings.without_void_turns)

    def _note_failure(self, error: Exception) -> None:
        """End the process where nothing works any more: Ray then tells the trainer, which stops."""
        InterlaceLoop._failures += 1
        most = LoopSettings.model_fields["give_up"].default
        started = InterlaceLoop._worker
        if started is not None and started.done() and not started.exception():
            most = started.result().settings.give_up
        if InterlaceLoop._failures >= most:
            why = f"{most} episodes in a row have failed on our side, the last one so: {error}"
            logger.critical(why)
            note_why(why)
            os._exit(1)

    async def _shared(self) -> LoopWorker:
        if InterlaceLoop._worker is None:
            InterlaceLoop._worker = asyncio.create_task(self._start())
        return await asyncio.shield(InterlaceLoop._worker)

    async def _start(self) -> LoopWorker:
        rollout = self.rollout_config
        for problem in unread(self.config):
            raise UsageError(problem)
        custom = rollout.get("custom")
        settings = read_settings(None if custom is None else OmegaConf.to_container(custom))
        worker = LoopWorker(
            settings,
            self.server_manager,
            self._own_tokenizer(),
            name=str(self.config.actor_rollout_ref.model.path),
            dialect="sglang" if rollout.name == "sglang" else "vllm",
            lengths=Lengths(
                rollout.prompt_length,
                rollout.response_length,
                rollout.max_model_len or rollout.prompt_length + rollout.response_length,
            ),
        )
        return await worker.__aenter__()

    def _own_tokenizer(self) -> Tokenizer:
        """Ours, from the files that verl's was made from, with the chat template that verl's has.

        Raises TokenizerError if there is none.
        """
        name = str(self.tokenizer.name_or_path)
        folder = Path(name) if Path(name).is_dir() else find_model(name)
        tokenizer = Tokenizer.load(folder)
        tokenizer.config["chat_template"] = self.tokenizer.chat_template
        return tokenizer
