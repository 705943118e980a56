"""Whose forward passes go through a model's blocks: one thread's at a time, and of that thread one call's.

A look into a model hangs on modules, and anyone may call a module: another thread, or the request's own
thread while it runs a plugin or a logits processor. So each look asks whether the pass that it meets is the
request's own. It is, if the request has announced it (`expect`) and it then comes through the model's front.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakSet

from torch import nn

from guardrail.errors import EvaluationError, ModelError
from guardrail.files.forks import freed

T = TypeVar("T")
NOBODY = 0
"""No thread has this identifier."""

_registry = freed(threading.Lock())
_turns: WeakKeyDictionary[nn.Module, Turn] = WeakKeyDictionary()
_guarded: WeakSet[nn.Module] = WeakSet()


class Turn:
    """One lock for everything that looks into some blocks, and what is known of the pass under way.

    Only the thread in `owner` changes `own` and `expected`, and it holds `lock`.
    """

    def __init__(self) -> None:
        self.lock = freed(RLock())
        self.owner = NOBODY
        """The thread whose request is under way."""
        self.own = False
        """Whether that thread is inside a pass that its request began."""
        self.expected = False
        """Whether the next pass through the model is the request's own."""
        self.inner = False
        """Whether the decoder is still to come in that pass."""
        self.barred = False
        """Whether no pass may begin before the prompt's: its tokens would be generated unguarded."""

    @property
    def here(self) -> bool:
        """Whether this thread's request is under way."""
        return self.owner == get_ident()

    @property
    def mine(self) -> bool:
        """Whether the pass in this thread is one that its request began."""
        return self.own and self.owner == get_ident()

    @contextmanager
    def taken(self, *, barred: bool = False) -> Generator[None]:
        """This thread's request, until the end: passes of other threads wait."""
        with self.lock:
            before = self.owner, self.own, self.expected, self.inner, self.barred
            self.owner, self.barred = get_ident(), barred
            self.own = self.expected = self.inner = False
            try:
                yield
            finally:
                self.owner, self.own, self.expected, self.inner, self.barred = before

    @contextmanager
    def looking(self) -> Generator[None]:
        """One look: of the request under way in this thread, else a request of its own."""
        if self.here:
            yield
            return
        with self.taken():
            self.expect()
            yield

    def expect(self) -> None:
        """The next pass in this thread is the request's own. In a model without a front it begins at once."""
        self.expected = self.own = self.inner = True

    def apart(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Call code that is not the model's, from within the request: its passes are not the request's."""
        owner, self.owner = self.owner, NOBODY
        try:
            return call(*args, **kwargs)
        finally:
            self.owner = owner

    def refuse_reentry(self) -> None:
        """Raises EvaluationError in a thread that holds the lock: its request would wait for itself."""
        if self.lock._is_owned():  # type: ignore[attr-defined]
            raise EvaluationError("the guard was called from inside a forward pass of its own model")


def turn_of(blocks: Iterable[nn.Module]) -> Turn:
    """The turn of these blocks, whichever models they are in."""
    blocks = list(blocks)
    with _registry:
        turn = next((_turns[block] for block in blocks if block in _turns), None) or Turn()
        for block in blocks:
            _turns.setdefault(block, turn)
    return turn


def claim(blocks: Iterable[nn.Module]) -> None:
    """Note that a guard holds these blocks. Raises ModelError if one holds any of them already."""
    blocks = list(blocks)
    with _registry:
        if any(block in _guarded for block in blocks):
            raise ModelError("another guard holds this model, or one that shares its blocks; close it first")
        _guarded.update(blocks)


def release(blocks: Iterable[nn.Module]) -> None:
    """Forget what `claim` noted."""
    with _registry:
        _guarded.difference_update(blocks)
