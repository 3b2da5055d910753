"""verl's sampler, which tells its estimators of teams: what is compared with what."""

from typing import Any

import transfer_queue
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

__all__ = ["TeamSampler"]


class TeamSampler(ReplayBuffer):  # type: ignore[misc]  # verl's classes have no types for us
    """`trainer.v1.sampler.custom_sampler` for teams, with `algorithm.adv_estimator=team_grpo`.

    verl tells its estimators of each row's task alone. Here the name of the row's part stands
    behind it. A group in which all episodes failed on our side is replaced, as in our recipes.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, sync_refill_failed_groups=True, gen_batch_size=1)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """A batch as verl's own sampler draws it, its rows named."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if partition_id == "train":
            self._name(batch)
        return batch, metrics

    def _name(self, batch: Any) -> None:
        told = transfer_queue.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["uid", "extra_fields"]
        )
        rows = zip(_plain(told["uid"]), _plain(told["extra_fields"]), strict=True)
        names = [{"uid": f"{uid}#{extra['interlace']['part']}"} for uid, extra in rows]
        transfer_queue.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=list_of_dict_to_tensordict(names),
        )


def _plain(values: Any) -> list[Any]:
    """What a column of things that are no tensors holds."""
    return [getattr(value, "data", value) for value in values]
