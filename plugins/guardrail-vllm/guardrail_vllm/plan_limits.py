"""Which plans vLLM can carry out."""

from __future__ import annotations

from guardrail.errors import ModelError
from guardrail.policy.plan import Plan


def check_plan(plan: Plan) -> None:
    """Raises ModelError for a plan that vLLM cannot carry out."""
    if plan.may_recompute:
        raise ModelError(
            f"a policy steers layer {plan.steered_layers[0]}, below layer {plan.layers[-1]}, the last one "
            "read: vLLM does not compute a prompt twice; steer at or above the last layer read"
        )
    if plan.drifts:
        raise ModelError("alarms over conversations need earlier replies read again, which vLLM does not do")
