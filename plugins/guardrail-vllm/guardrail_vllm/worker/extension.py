"""What vLLM puts into its worker class (`--worker-extension-cls guardrail_vllm.worker.GuardExtension`)."""

from __future__ import annotations

from typing import Any

from guardrail_vllm.plans import unpacked
from guardrail_vllm.worker.asked import SentPlans
from guardrail_vllm.worker.guard import WorkerGuard
from guardrail_vllm.worker.installation import GUARDS, prepare


class GuardExtension:
    """Guards the worker's model from the moment that it is loaded, and takes plans by `collective_rpc`."""

    vllm_config: Any

    def __setattr__(self, name: str, value: Any) -> None:
        # the worker makes its model runner in the middle of a method of its own
        super().__setattr__(name, value)
        if name == "model_runner" and value is not None:
            prepare(self, value)

    def guardrail(self) -> WorkerGuard:
        """The guard of this worker."""
        return GUARDS[self.vllm_config.instance_id]

    def guardrail_plan(self, name: str, data: bytes) -> None:
        """Take a plan, which requests may name from now on."""
        guard = self.guardrail()
        assert isinstance(guard.source, SentPlans)
        plan = unpacked(data)
        guard.source.plans[name] = plan
        guard.tensors(plan)

    def guardrail_keep(self, names: list[str]) -> None:
        """Forget all plans but these, and those of requests under way."""
        guard = self.guardrail()
        assert isinstance(guard.source, SentPlans)
        guard.source.keep(names)
        guard.keep(list(guard.source.plans.values()))

    def guardrail_counts(self) -> dict[str, int]:
        """Requests and plans that the worker knows, passes that it has guarded, and prompts in them that
        were decided before and are computed again after a preemption."""
        guard = self.guardrail()
        plans = len(guard.source.plans) if isinstance(guard.source, SentPlans) else 1
        known = {"requests": len(guard.requests), "plans": plans}
        return known | {"passes": guard.passes, "repeated": guard.repeated}
