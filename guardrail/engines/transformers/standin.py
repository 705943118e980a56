"""Callables that take the place of a module's methods for a while, and are taken off without a trace."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")
_MISSING: Any = object()


class StandIn:
    """In place of a method, on one object. Others may do the same before it, after it and over it.

    `own` is what was there before. A copy or a pickle of the object gets the method itself.
    """

    def __init__(self, holder: Any, name: str) -> None:
        self.holder, self.name = holder, name
        self.own: Callable[..., Any] = getattr(holder, name)
        self._had = holder.__dict__.get(name, _MISSING)
        self.retired = False

    @cached_property
    def __signature__(self) -> inspect.Signature:
        """Of the method: transformers asks for it at every decoding step."""
        return inspect.signature(self.own)

    @property
    def on_top(self) -> bool:
        """Whether whoever calls the method calls this."""
        return self.holder.__dict__.get(self.name) is self

    @property
    def fits(self) -> bool:
        """Whether the method is still the one that this was made for."""
        return self.holder.__dict__.get(self.name, _MISSING) is self._had

    def put(self) -> None:
        """Take the method's place."""
        self.retired = False
        self.holder.__dict__[self.name] = self

    def take_off(self) -> None:
        """Give the place back. What others have put there since stays; called by it, this does nothing."""
        self.retired = True
        if not self.on_top:
            return
        if self._had is _MISSING:
            del self.holder.__dict__[self.name]
        else:
            self.holder.__dict__[self.name] = self._had

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # while a module is copied it has nothing in its `__dict__` yet, so that this finds the class's method
        return (getattr, (self.holder, self.name)) if self._had is _MISSING else (_itself, (self._had,))


def _itself(value: T) -> T:
    return value
