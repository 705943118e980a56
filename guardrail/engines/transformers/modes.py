"""Evaluation mode for the length of a forward pass: a guard never reads with dropout."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from operator import attrgetter

from torch import nn

MODELESS = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm)
"""Half of a model's modules, which compute the same in both modes."""


def with_modes(model: nn.Module) -> tuple[nn.Module, ...]:
    """The modules of a model that may compute something else while they are trained."""
    return tuple(module for module in model.modules() if type(module) not in MODELESS)


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Generator[None]:
    """Every module in evaluation mode inside, and afterwards in the mode that it was in.

    `model.eval()` would not do: one submodule may be in training beside others that are not.
    """
    training = list(filter(attrgetter("training"), modules))
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
