"""Running compiled models eagerly for a while. torch has one stance for the whole process."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from guardrail.files.forks import freed

_lock = freed(threading.Lock())
_inside: list[Any] = []
"""The stance to be ended, once for everyone who is inside."""


@contextmanager
def eagerly() -> Generator[None]:
    """Compiled code runs eagerly inside: nothing can look into a graph that was compiled before."""
    # guards of several models overlap: whoever leaves first must not end it for the others, and whoever
    # leaves last must not put back what the first has set
    with _lock:
        _inside.append(_inside[-1] if _inside else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            stance = _inside.pop()
            if not _inside:
                stance.__exit__(None, None, None)
