"""What a plain `generate` of a guarded model does: it is guarded if the guard is installed, else noticed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

from guardrail.errors import UnguardedCall, UnsupportedGeneration

HOW = "call guard.generate, or guard.install() to make the model's own generate the guarded one"


class UnguardedWarning(UserWarning):
    """The guarded model's own `generate` was called: what it returns was not evaluated."""


class Installation:
    """Asked before every plain call. `guarded` is the guard's own `generate`, `mode` what policies say."""

    def __init__(self, guarded: Callable[..., Any], mode: Callable[[], Literal["warn", "error"]]) -> None:
        self._guarded, self._mode = guarded, mode
        self._warned = False
        self.installed = False

    def __call__(self, name: str) -> Callable[..., Any] | None:
        """What is called instead of the model's method of this name; None for the method itself.

        Raises UnsupportedGeneration for a method that cannot be guarded, and UnguardedCall.
        """
        if self.installed:
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

    def close(self, model: Any) -> None:
        """Take the guard's `generate` off a model if its user has put it there by hand."""
        self.installed = False
        if vars(model).get("generate") == self._guarded:
            del vars(model)["generate"]
