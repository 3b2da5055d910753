"""verl's samplers, with a bound on how often a step draws again, and with an eye on its episodes.

verl makes one beside its trainer, in whose process it lives (trainer/ppo/v1, verl 0.9.1). Name the
one that fits the trainer in `trainer.v1.sampler.custom_sampler`, as our recipes do.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import transfer_queue
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from ..monitor import Monitor
from .ending import note_why
from .seen import describe_rows

__all__ = ["AsyncSampler", "Sampler", "TeamSampler"]


class _Bounded:
    """The parts that ours add to verl's sampler; `sampler_kwargs` are in interlace_base.yaml.

    A group teaches nothing where its attempts are all right or all wrong (`filter_groups`), where
    all failed on our side, and where one alone is left, which GRPO would give its bare reward. It
    is drawn again, in a step at most `refills` times as many as the batch has; then the step takes
    what it has. Without any the run ends and says why.
    """

    partitions: Any
    failure_keys: Any
    pending_keys: Any
    running_keys: Any
    refill_fn: Callable[[int], int]

    def __init__(
        self, *, sampler_kwargs: Mapping[str, Any], refill_fn: Callable[[int], int], **given: Any
    ) -> None:
        filters = sampler_kwargs["filter_groups"] or {}
        super().__init__(
            **given,
            sampler_kwargs=sampler_kwargs,
            refill_fn=refill_fn,
            filter_groups_metric=filters["metric"] if filters.get("enable") else None,
            train_batch_size=sampler_kwargs["batch_size"],
            gen_batch_size=1,
            sync_refill_failed_groups=True,
        )  # type: ignore[call-arg]  # verl's sampler, the other base class
        self._group_size = int(sampler_kwargs["group_size"])
        self._tries = int(sampler_kwargs["tries"])
        self._refills = int(sampler_kwargs["refills"])
        self._counted: Counter[str] = Counter()  # a step's metrics, by name
        self._not_validated = 0  # episodes of a validation that never came
        _watch(refill_fn.__self__, self)  # type: ignore[attr-defined]  # __self__: verl's trainer

    def _terminal_eviction_reasons(self, global_steps: int, partition_id: str) -> Any:
        stale, same, failed, counts = super()._terminal_eviction_reasons(  # type: ignore[misc]
            global_steps, partition_id
        )
        if partition_id == "train" and self._group_size > 1:
            sessions = _sessions(self.partitions[partition_id])
            failed |= {uid for uid in self.failure_keys[partition_id] if sessions[uid] < 2}
        return stale, same, failed, counts

    def _gather(self, step: int, wanted: int) -> tuple[set[str], dict[str, Any]]:
        """Wait for as many groups as are wanted, drawing anew for those that teach nothing."""
        verl: Any = self
        metrics: dict[str, Any] = {}
        left, drawn, told_at = self._refills * wanted, 0, time.time()
        while True:
            verl._sync_metadata_from_transfer_queue()
            reasons = self._terminal_eviction_reasons(step, "train")
            stale, same, failed, _ = reasons
            gone, _, _, told = verl._evict_terminal_groups(step, "train", reasons)
            if told:
                _merge(metrics, told, len(stale))
            self._counted["uninformative_groups"] += len(same - stale)
            self._counted["left_out"] += self._group_size * len(failed - same - stale)
            ready = verl._sampleable_terminal_keys("train", reasons)
            under_way = len(self.pending_keys["train"]) + len(self.running_keys["train"])
            lost = len(gone - stale)
            again = min(left, max(lost, wanted - len(ready) - under_way - len(stale)))
            if again > 0:
                left, drawn = left - again, drawn + again
                print(
                    f"step {step}: {again} tasks are drawn anew ({drawn} of at most "
                    f"{self._refills * wanted}): {len(same)} groups were all right or all wrong, "
                    f"{len(failed)} failed on our side",
                    flush=True,
                )
            if again + len(stale) > 0:
                self.refill_fn(again + len(stale))
                continue
            if self._enough(step, wanted, ready):
                break
            if not under_way:
                self._make_do(step, wanted, len(ready))
                break
            told_at = verl._wait_for_next_poll("train", told_at)
        self._counted["refilled_tasks"] += drawn
        return ready, metrics

    def _enough(self, step: int, wanted: int, ready: set[str]) -> bool:
        return len(ready) >= wanted

    def _make_do(self, step: int, wanted: int, ready: int) -> None:
        """Go on with fewer groups; without any, end. Raises RuntimeError, in one sentence."""
        bad, out = self._counted["uninformative_groups"], self._counted["left_out"]
        why = (
            f"{bad} groups were all right or all wrong, and {out} episodes failed on our side, "
            f"after {self._refills} refills"
        )
        if ready:
            print(f"step {step} takes {ready} groups instead of {wanted}: {why}", flush=True)
            return
        advice = (
            "Take tasks that the policy solves now and then, more attempts at each "
            "(actor_rollout_ref.rollout.n), or a cold start first"
            if bad
            else "The log above says why each failed"
        )
        sentence = f"step {step} has nothing to learn from: {why}. {advice}"
        note_why(sentence)
        raise RuntimeError(sentence)

    def _count(self, batch: Any, partition_id: str, wanted: int) -> None:
        """How many sessions of the batch's groups are missing: they failed on our side."""
        found = _sessions(batch.keys)
        if partition_id == "train":
            self._counted["left_out"] += self._group_size * len(found) - found.total()
        else:
            self._not_validated += self._tries * wanted - found.total()

    def step_metrics(self, batch: Any) -> dict[str, float]:
        """Metrics of a step's rows, and of what was left out since the last step."""
        real = [
            key
            for key, tag in zip(batch.keys, batch.tags, strict=True)
            if not tag.get("is_padding", False)
        ]
        told = transfer_queue.kv_batch_get(
            keys=real, partition_id=batch.partition_id, select_fields=["extra_fields"]
        )
        metrics = describe_rows(real, _plain(told["extra_fields"]))
        for name in ("left_out", "uninformative_groups", "refilled_tasks"):
            metrics[f"interlace/{name}"] = float(self._counted[name])
        self._counted.clear()
        return metrics

    def validation_metrics(self) -> dict[str, float]:
        """How many sessions of the validation failed on our side; verl counts them as wrong."""
        failed, self._not_validated = self._not_validated, 0
        if failed:
            print(
                f"validation: {failed} episodes failed on our side; in val-core's acc they count "
                "as wrong, acc_success_only is without them",
                flush=True,
            )
        return {"interlace/validation/failed_episodes": float(failed)}


class Sampler(_Bounded, ReplayBuffer):  # type: ignore[misc]  # verl's classes have no types for us
    """For `trainer.v1.trainer_mode=sync`."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """A batch as verl's own sampler draws it, or of fewer groups."""
        if partition_id == "val":
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
        else:
            ready, metrics = self._gather(global_steps, batch_size)
            chosen, rows, _ = self._select_prompt_uids(partition_id, ready, batch_size)
            batch = self._materialize_batch(partition_id, chosen, rows)
        self._count(batch, partition_id, batch_size)
        return batch, metrics


class AsyncSampler(_Bounded, ReplayBufferAsync):  # type: ignore[misc]
    """For `colocate_async` and `separate_async`: groups of outdated weights are drawn again as
    well, as often as it takes.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)

    def wait_for_sampleable(
        self, global_steps: int, partition_id: str, target_count: int
    ) -> tuple[set[str], dict[str, Any]]:
        """The groups that are ready, once there are enough, and what was evicted meanwhile."""
        if partition_id == "val":
            return super().wait_for_sampleable(global_steps, partition_id, target_count)  # type: ignore[no-any-return]
        return self._gather(global_steps, target_count)

    def _enough(self, step: int, wanted: int, ready: set[str]) -> bool:
        return bool(self._has_enough_samples(step, "train", wanted, ready))

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """A batch as verl's own sampler draws it, or of fewer groups."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        self._count(batch, partition_id, batch_size)
        return batch, metrics


class TeamSampler(Sampler):
    """For teams and trees, with `algorithm.adv_estimator=team_grpo` or `tree_grpo`.

    verl tells its estimators of each row's task alone. Here the name of the row's part stands
    behind it.
    """

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


def _watch(trainer: Any, sampler: _Bounded) -> None:
    """Have a trainer of verl's log what the sampler knows, and say what its metrics show.

    verl hands nobody the whole metrics of a step or of a validation: these two of its methods make
    them, and what they make is added to.
    """
    made, validated, monitor = trainer._compute_metrics, trainer._val_metrics_update, Monitor()

    def of_step(batch: Any, metrics: dict[str, Any], *given: Any, **more: Any) -> None:
        metrics.update(sampler.step_metrics(batch))  # verl takes the batch's fields
        made(batch, metrics, *given, **more)
        for sentence in monitor.look(metrics):
            print(f"warning: {sentence}", flush=True)

    def of_validation(*given: Any, **more: Any) -> dict[str, Any]:
        return {**validated(*given, **more), **sampler.validation_metrics()}

    trainer._compute_metrics, trainer._val_metrics_update = of_step, of_validation


def _sessions(keys: Any) -> Counter[str]:
    """How many sessions each group has, of verl's keys `UID_SESSION_INDEX`."""
    return Counter(session.rpartition("_")[0] for session in {k.rpartition("_")[0] for k in keys})


def _merge(metrics: dict[str, Any], told: Mapping[str, Any], stale: int) -> None:
    from verl.trainer.ppo.v1.replay_buffer import _accumulate_eviction_metrics

    _accumulate_eviction_metrics(metrics, dict(told), stale)


def _plain(values: Any) -> list[Any]:
    """The values in a column of non-tensors."""
    return [getattr(value, "data", value) for value in values]
