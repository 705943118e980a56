"""vLLM's scheduler for a guarded model (`--scheduler-cls guardrail_vllm.scheduler.guard_scheduler`).

Prefix caching finds keys and values by their tokens alone. Those of a steered reply are not what the model
computes for its tokens, so that later requests must not find them, and a steered request must not find those
of others in the middle of its own reply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from guardrail_vllm.worker.asked import NAME

if TYPE_CHECKING:
    from vllm.v1.request import Request

    Base = Scheduler
else:
    Base = object


class OwnReplies(Base):
    """Keeps what may be steered out of the prefix cache; prompts but for their last token are shared."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        coordinator = self.kv_cache_manager.coordinator
        cache = coordinator.cache_blocks

        def cached(request: Request, tokens: int) -> None:
            limit = request.num_prompt_tokens - 1
            cache(request, min(tokens, limit) if may_be_steered(request) else tokens)

        coordinator.cache_blocks = cached

    def _preempt_request(self, request: Request, *arguments: Any, **options: Any) -> None:
        super()._preempt_request(request, *arguments, **options)
        if may_be_steered(request):
            request.skip_reading_prefix_cache = True


class GuardScheduler(OwnReplies, Scheduler):
    """For vLLM's scheduler."""


class AsyncGuardScheduler(OwnReplies, AsyncScheduler):
    """For the one that schedules a pass while the one before it runs."""


def guard_scheduler(*arguments: Any, vllm_config: Any, **options: Any) -> Scheduler:
    """The scheduler that this configuration asks for, guarded."""
    kind = AsyncGuardScheduler if vllm_config.scheduler_config.async_scheduling else GuardScheduler
    return kind(*arguments, vllm_config=vllm_config, **options)


def may_be_steered(request: Request) -> bool:
    """Whether a policy may steer this request or its reply."""
    parameters = request.sampling_params
    told = (parameters.extra_args or {}).get(NAME) if parameters is not None else None
    return isinstance(told, dict) and bool(told.get("steers"))
