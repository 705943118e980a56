"""What ends stopped requests (`--logits-processors guardrail_vllm.worker:GuardLogits`)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, LogitsProcessor

from guardrail_vllm.worker.asked import NAME, UNGUARDED
from guardrail_vllm.worker.installation import GUARDS


class GuardLogits(LogitsProcessor):
    """Leaves only the end to rows that stop, whatever other processors have done to them."""

    def __init__(self, vllm_config: Any, device: object, is_pin_memory: bool) -> None:
        self._name = vllm_config.instance_id

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises vLLM's validation error for a request that did not come through the guard."""
        if not isinstance((sampling_params.extra_args or {}).get(NAME), dict):
            raise VLLMValidationError(UNGUARDED)

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
        guard.withhold(logits)
        return logits
