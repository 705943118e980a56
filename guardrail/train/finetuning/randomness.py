"""Leaves the random generators of Python, NumPy and PyTorch as they were."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def as_it_was() -> Generator[None]:
    """Whatever is drawn or seeded inside, the generators are afterwards where they were before."""
    python, numbers = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)
