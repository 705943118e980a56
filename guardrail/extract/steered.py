"""Steers a batch during generation, from the last prompt position on, as the guard does."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from guardrail.engines.transformers.nnsight import hidden_of
from guardrail.engines.transformers.steering import BatchSteering
from guardrail.errors import SteeringError
from guardrail.types import Decision, Steering


@contextmanager
def steered(blocks: nn.ModuleList, steering: Sequence[Steering]) -> Generator[None]:
    """Steers every forward pass inside the block; prompts must be padded on the left.

    Raises SteeringError if nothing was steered, so that this cannot go unnoticed.
    """
    if not steering:
        yield
        return
    apart = tuple(replace(one, policy=str(i)) for i, one in enumerate(steering))
    batch = BatchSteering([Decision(status="evaluated", action="steer", steering=apart)])
    with ExitStack() as hooks:
        for layer in batch.layers:
            hooks.callback(blocks[layer - 1].register_forward_hook(_hook(batch, layer)).remove)
        yield
    if batch.counts[0] == 0:
        raise SteeringError("steering was requested, but no forward pass was steered")


def _hook(batch: BatchSteering, layer: int) -> Callable[[nn.Module, Any, Any], None]:
    def change(_module: nn.Module, _inputs: Any, output: Any) -> None:
        batch.apply(layer, hidden_of(output)[:, -1:])

    return change
