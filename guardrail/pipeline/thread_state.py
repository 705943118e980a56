"""What torch keeps for each thread, carried from a caller to the worker that runs the model for it.

Grad and inference mode, autocast, function and dispatch modes (the default device is one), the CUDA stream
and the number of threads belong to a thread. Default dtype, deterministic algorithms, anomaly detection, the
choice of attention kernels and random generators belong to the process: there is nothing to carry.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""The device types that autocast is switched for."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """The state of one thread. Without torch in the process there is none."""

    grad: bool
    inference: bool
    autocast: tuple[tuple[str, Any], ...]
    """Device types and dtypes of which autocast is on."""
    cached: bool
    function_modes: tuple[Any, ...]
    dispatch_modes: tuple[Any, ...]
    stream: Any
    threads: int

    @classmethod
    def here(cls) -> ThreadState | None:
        """The state of the thread that calls this."""
        torch = sys.modules.get("torch")
        if torch is None:
            return None
        # one question on the way of every request, and four for those who use it
        devices = DEVICES if torch._C._is_any_autocast_enabled() else ()
        on = [name for name in devices if torch.is_autocast_enabled(name)]
        return cls(
            grad=torch.is_grad_enabled(),
            inference=torch.is_inference_mode_enabled(),
            autocast=tuple((name, torch.get_autocast_dtype(name)) for name in on),
            cached=bool(on) and torch.is_autocast_cache_enabled(),
            function_modes=tuple(torch.overrides._get_current_function_mode_stack()),
            dispatch_modes=tuple(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
            stream=torch.cuda.current_stream() if torch.cuda.is_initialized() else None,
            threads=torch.get_num_threads(),
        )

    @property
    def _plain(self) -> bool:
        """Whether this is the state that threads begin with."""
        special = self.autocast or self.function_modes or self.dispatch_modes or self.stream
        return self.grad and not self.inference and not special

    @contextmanager
    def entered(self) -> Generator[None]:
        """Give this state to the thread that enters, for as long as it is inside."""
        import torch
        from torch.utils import _python_dispatch

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        if self._plain:
            yield
            return
        with ExitStack() as stack:
            if self.inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(self.grad))
            for name, dtype in self.autocast:
                stack.enter_context(torch.autocast(name, dtype, cache_enabled=self.cached))
            if self.stream is not None:
                stack.enter_context(torch.cuda.stream(self.stream))
            # not `with mode`: a mode may keep what it found on entering, for the thread that entered it first
            _push(stack, torch.overrides, self.function_modes)
            _push(stack, _python_dispatch, self.dispatch_modes)
            yield


def _push(stack: ExitStack, kind: Any, modes: tuple[Any, ...]) -> None:
    for mode in modes:
        kind._push_mode(mode)
        stack.callback(kind._pop_mode)
