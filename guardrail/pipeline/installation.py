"""What a plain `generate` of a guarded model does: it is guarded if the guard is installed, else noticed."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal

from guardrail.errors import UnguardedCall, UnsupportedGeneration
from guardrail.files.forks import freed

HOW = "call guard.generate, or guard.install() to make the model's own generate the guarded one"
COPIED = "a copy or a pickle of a guarded model is not guarded: make a guard for it"


class UnguardedWarning(UserWarning):
    """The guarded model's own `generate` was called, or that of a copy will be: nothing evaluates it."""


class Installation:
    """Asked before every plain call. `guarded` is the guard's own `generate`, `mode` what policies say."""

    def __init__(self, guarded: Callable[..., Any], mode: Callable[[], Literal["warn", "error"]]) -> None:
        self._guarded, self._mode = guarded, mode
        self._warned = False
        self._lock = freed(threading.Lock())
        self._always, self._blocks = False, 0

    def __call__(self, name: str) -> Callable[..., Any] | None:
        """What is called instead of the model's method of this name; None for the method itself.

        Without a name the model is copied or pickled, which is warned about: the copy has its own methods.
        Raises UnsupportedGeneration for a method that cannot be guarded, and UnguardedCall.
        """
        if not name:
            warnings.warn(COPIED, UnguardedWarning, 4)
            return None
        if self._always or self._blocks:
            if name != "generate":
                raise UnsupportedGeneration(f"`{name}` would bypass the guard and is not supported yet")
            return self._guarded
        if self._mode() == "error":
            raise UnguardedCall(f"the model is guarded, and `{name}` is not; {HOW}")
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the model is guarded, and this `{name}` is not evaluated; {HOW}", UnguardedWarning, 4
            )
        return None

    def install(self) -> None:
        """From now on, until `close`."""
        self._always = True

    @contextmanager
    def installed(self) -> Generator[None]:
        """Inside of this block, and of all others that threads and tasks are in: they end in any order."""
        with self._lock:
            self._blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1

    def close(self, model: Any) -> None:
        """Take the guard's `generate` off a model if its user has put it there by hand."""
        self._always = False
        if vars(model).get("generate") == self._guarded:
            del vars(model)["generate"]
