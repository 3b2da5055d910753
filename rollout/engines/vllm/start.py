"""Starting vLLM and ending it, and the thread in which its event loop runs."""

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ....tools.errors import MissingExtra, ModelError
from ....tools.forks import renew_in_child
from ...tokenizer import Tokenizer
from ..base import EngineError
from .kept_contexts import KeptContexts
from .service import Service
from .worker_extension import Reload

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["Thread", "arguments", "may_keep", "shut_down", "start"]

T = TypeVar("T")

# What is set already stays as it is. vLLM writes its log to stdout, where answers go, and reports
# to its makers unless told not to.
_SURROUNDINGS = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_FORKED = (
    "vLLM was started before this process was forked, and can't be used in it: ask the first "
    "question after the fork, in one process"
)
_CPU_BLOCKS = 1 << 30
"""Bytes for keys and values on a CPU."""
_STEPS_AHEAD = (0, 32)
"""From this version on, a resumable request may end while its next step is under way already."""
_ENGINE_OF_ITS_OWN = (0, 32)
"""From this version on (it came at some time after 0.24), all pieces of a resumable request go to
the same one of several engines; before, the next piece may begin a context of its own elsewhere."""


def arguments(folder: Path, device: str, dtype: str, max_context: int | None) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs` for a model's folder.

    Raises MissingExtra without vLLM, ModelError for a device that this build is not for.
    """
    for name, value in _SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise MissingExtra("vLLM", "vllm") from error
    built_for = current_platform.device_type
    if device not in ("auto", built_for, f"{built_for}:0"):
        raise ModelError(
            f"this vLLM runs on {built_for}, not on {device}; which card it takes is said by "
            "CUDA_VISIBLE_DEVICES"
        )
    on_cpu = built_for == "cpu"
    given: dict[str, Any] = {
        "model": str(folder),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # all that shapes the distribution comes with a request
        "dtype": "float32" if dtype == "auto" and on_cpu else dtype,
        "max_model_len": max_context,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": f"{Reload.__module__}.{Reload.__name__}",
        "use_tqdm_on_load": False,
        "disable_log_stats": True,
    }
    if on_cpu:
        given["enforce_eager"] = True
        # A prompt cut in two has vLLM turn the random numbers of its seed back, and die of it:
        # generators on a CPU can't be turned back.
        given["enable_chunked_prefill"] = False
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            given["kv_cache_memory_bytes"] = _CPU_BLOCKS
    if _version() < _STEPS_AHEAD:
        given["async_scheduling"] = False
    return given


def may_keep(options: Mapping[str, Any]) -> bool:
    """True if contexts can stay in vLLM while tools run, with these `AsyncEngineArgs`."""
    return options.get("data_parallel_size", 1) == 1 or _version() >= _ENGINE_OF_ITS_OWN


def _version() -> tuple[int, ...]:
    import vllm

    return tuple(map(int, vllm.__version__.split(".")[:2]))


async def start(
    given: dict[str, Any], tokenizer: Tokenizer, contexts: KeptContexts | None, max_batch: int
) -> "tuple[AsyncLLM, Service]":
    """Start vLLM on the running event loop."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    steps = _Steps()
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**given), stat_loggers=[steps.of])
    steps.service = Service(llm, tokenizer, contexts, max_batch)
    return llm, steps.service


def shut_down(llm: "AsyncLLM", thread: "Thread") -> None:
    """End vLLM's processes and the thread."""
    if thread.forked:  # they are the parent's
        return

    async def end() -> None:
        # A CPU build does not end by itself, and is killed after this.
        llm.shutdown(timeout=1)

    thread.run(end())
    thread.stop()


class Thread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="interlace-vllm", daemon=True
        )
        self._thread.start()
        self.forked = False
        """True in a process that was forked since, where the thread does not run."""
        renew_in_child(self)

    def after_fork(self) -> None:
        """Refuse work in a forked process."""
        self.forked = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """As `run`, from another event loop. Raises EngineError where the thread has ended."""
        if self.forked or self._loop.is_closed():
            work.close()
            raise EngineError(_FORKED if self.forked else "the engine is closed")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def call(self, function: Any, *given: Any) -> None:
        """Have a function called there. Raises EngineError where the thread has ended."""
        if self.forked:
            raise EngineError(_FORKED)
        try:
            self._loop.call_soon_threadsafe(function, *given)
        except RuntimeError as error:
            raise EngineError("the engine is closed") from error

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Steps:
    """Hears from vLLM of each of its steps: a logger as its `StatLoggerBase` describes it."""

    service: Service | None = None

    def of(self, config: Any, engine: int = 0) -> "_Steps":
        """The logger of one of the engines."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, *rest: Any, **more: Any) -> None:
        """A step is over."""
        if self.service is not None and scheduler_stats is not None:
            preempted = getattr(iteration_stats, "num_preempted_reqs", 0)
            self.service.record(scheduler_stats.kv_cache_usage, preempted)

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def log(self) -> None:
        """Nothing to say."""

    def record_sleep_state(self, *state: Any) -> None:
        """Nothing to say."""
