"""Samplers which note in $INTERLACE_TEST_SAMPLED what they hand to the trainer, row by row."""

import json
import os
from typing import Any

import transfer_queue

from interlace.train.verl.sampler import AsyncSampler, Sampler, TeamSampler

FIELDS = ["uid", "prompts", "responses", "response_mask", "rollout_log_probs", "rm_scores"]


class Recorder(Sampler):
    """`trainer.v1.sampler.custom_sampler`: ours for single agents."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        _note(batch, global_steps, partition_id)
        return batch, metrics


class AsyncRecorder(AsyncSampler):
    """... for asynchronous trainers."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        _note(batch, global_steps, partition_id)
        return batch, metrics


class TeamRecorder(TeamSampler):
    """... and for teams."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        _note(batch, global_steps, partition_id)
        return batch, metrics


def _note(batch: Any, step: int, kind: str) -> None:
    fields = [*FIELDS, "extra_info"]
    data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=kind, select_fields=fields)
    uids, extra = ([getattr(v, "data", v) for v in data[name]] for name in ("uid", "extra_info"))
    with open(os.environ["INTERLACE_TEST_SAMPLED"], "a", encoding="utf-8") as file:
        for row, key in enumerate(batch.keys):
            note: dict[str, Any] = {"key": key, "step": step, "kind": kind, "uid": uids[row]}
            note["task"] = extra[row]["index"]
            note |= {field: data[field][row].tolist() for field in FIELDS[1:]}
            file.write(json.dumps(note) + "\n")
