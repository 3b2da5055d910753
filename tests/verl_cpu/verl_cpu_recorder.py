"""Samplers which note in $SAMPLED what they hand to the trainer, row by row."""

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
    data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=kind, select_fields=FIELDS)
    uids = [getattr(uid, "data", uid) for uid in data["uid"]]
    with open(os.environ["SAMPLED"], "a", encoding="utf-8") as file:
        for row, key in enumerate(batch.keys):
            note: dict[str, Any] = {"key": key, "step": step, "kind": kind, "uid": uids[row]}
            note |= {field: data[field][row].tolist() for field in FIELDS[1:]}
            file.write(json.dumps(note) + "\n")
