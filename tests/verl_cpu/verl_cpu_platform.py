"""verl 0.9 without an accelerator: for tests alone. Name it in VERL_USE_EXTERNAL_MODULES.

verl's own hooks take a platform, a rollout and a replica. Three things they can't say are patched:
the backend of the process group (verl would name the device twice), pinned memory for the reference
policy (needs an accelerator), and the table of rollouts, which has no function to add to it.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import verl.utils.distributed as distributed
import verl.utils.fsdp_utils as fsdp
import verl.workers.rollout.base as rollouts
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry
from verl.workers.rollout.replica import RolloutReplicaRegistry


def _device_module() -> types.ModuleType:
    """torch.cpu, with what verl asks of torch.cuda beside it."""
    module = types.ModuleType("torch_cpu_as_device")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))
    nothing = (
        "empty_cache synchronize ipc_collect reset_peak_memory_stats set_device manual_seed "
        "manual_seed_all"
    )
    zero = "memory_allocated memory_reserved max_memory_allocated max_memory_reserved"
    more: dict[str, Any] = {name: lambda *_, **__: None for name in nothing.split()}
    more |= {name: lambda *_, **__: 0 for name in zero.split()}
    more |= {
        "mem_get_info": lambda *_, **__: (8 << 30, 16 << 30),
        "get_device_name": lambda *_, **__: "CPU",
        "get_rng_state": lambda *_, **__: torch.get_rng_state(),
        "set_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
        "is_available": lambda: True,
    }
    for name, value in more.items():
        setattr(module, name, value)
    return module


_DEVICE = _device_module()


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """One CPU that verl takes for one device."""

    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: _DEVICE)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # where FSDP moves a model to

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"  # Ray is told that there is one

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


_process_group = distributed.initialize_global_process_group_ray


def _over_gloo(timeout_second: int | None = None, backend: str | None = None) -> Any:
    return _process_group(timeout_second=timeout_second, backend=backend or "cpu:gloo")


distributed.initialize_global_process_group_ray = _over_gloo


class _NotPinned(fsdp.CPUOffloadPolicy):  # type: ignore[misc]
    def __init__(self, pin_memory: bool = False) -> None:
        super().__init__(pin_memory=False)


if fsdp.CPUOffloadPolicy.__name__ != "_NotPinned":
    fsdp.CPUOffloadPolicy = _NotPinned


def _load_replica() -> Any:
    from verl_cpu_rollout import Replica

    return Replica


rollouts._ROLLOUT_REGISTRY[("transformers", "async")] = "verl_cpu_rollout.Adapter"
RolloutReplicaRegistry.register("transformers", _load_replica)
