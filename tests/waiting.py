"""Counting where the host asks for what is on a device, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


def on_a_device(monkeypatch, elsewhere=True):
    """Treat every tensor as one that cannot be looked at without waiting."""
    for module in ("ends", "prefill"):
        monkeypatch.setattr(f"guardrail.engines.transformers.{module}.on_host", lambda tensor: not elsewhere)


class Waits(TorchDispatchMode):
    """Counts where the host asks for a tensor's values: on a device it waits there."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)))

    def _counted(self, method):
        def call(tensor, *args, **kwargs):
            self.count += 1
            return method(tensor, *args, **kwargs)

        return call

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[Waits]:
    """Counts while it lasts."""
    with pytest.MonkeyPatch.context() as monkeypatch, Waits(monkeypatch) as found:
        yield found
