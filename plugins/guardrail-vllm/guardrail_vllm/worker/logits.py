"""What ends stopped requests (`--logits-processors guardrail_vllm.worker:GuardLogits`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor

from guardrail_vllm.worker.installation import GUARDS


class GuardLogits(LogitsProcessor):
    """Leaves only the end to rows that stop, whatever other processors have done to them."""

    def __init__(self, vllm_config: Any, device: object, is_pin_memory: bool) -> None:
        self._name = vllm_config.instance_id

    def is_argmax_invariant(self) -> bool:
        """A stopped row has another token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Nothing: the guard of the worker knows the rows of the pass."""

    def apply(self, logits: Tensor) -> Tensor:
        """The logits [rows, vocabulary], changed in place."""
        guard = GUARDS.get(self._name)
        # without a guard in the worker nobody has looked at these requests
        if guard is None:
            raise RuntimeError("the worker is not guarded: start vLLM with the guard's worker extension too")
        guard.stop(logits)
        return logits
