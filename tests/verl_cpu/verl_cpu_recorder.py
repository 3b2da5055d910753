"""verl's sampler, which notes in $SAMPLED what it hands to the trainer, row by row."""

import json
import os
from typing import Any

import transfer_queue
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

FIELDS = ["prompts", "responses", "response_mask", "rollout_log_probs", "rm_scores"]


class Recorder(ReplayBuffer):  # type: ignore[misc]
    """`trainer.v1.sampler.custom_sampler`."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        data = transfer_queue.kv_batch_get(
            keys=batch.keys, partition_id=partition_id, select_fields=FIELDS
        )
        with open(os.environ["SAMPLED"], "a", encoding="utf-8") as file:
            for row, key in enumerate(batch.keys):
                note: dict[str, Any] = {"key": key, "step": global_steps, "kind": partition_id}
                note |= {field: data[field][row].tolist() for field in FIELDS}
                file.write(json.dumps(note) + "\n")
        return batch, metrics
