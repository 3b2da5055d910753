"""Code that runs inside vLLM's worker processes: it replaces the weights in place."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Reload"]


class Reload:
    """Joined to vLLM's worker class (`worker_extension_cls`), in every worker process."""

    def interlace_reload(self, folder: str) -> None:
        """Replace the weights by those in a folder, sharded as this worker has them.

        vLLM's own reload leaves out a head tied to the embedding: a CPU build continues with
        the old one's packed copy (seen in 0.32). What that copy is made of is new by then.
        """
        worker: Any = self
        worker.reload_weights(weights_path=folder)
        for module in worker.model_runner.get_model().modules():
            if _is_head(module):
                module.quant_method.process_weights_after_loading(module)


def _is_head(module: "nn.Module") -> bool:
    from vllm.model_executor.layers.vocab_parallel_embedding import (
        ParallelLMHead,
        UnquantizedEmbeddingMethod,
    )

    # Of a quantised head, which is never tied, the reload has seen to it.
    plain = isinstance(getattr(module, "quant_method", None), UnquantizedEmbeddingMethod)
    return plain and isinstance(module, ParallelLMHead)
