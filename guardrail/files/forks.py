"""What a forked process cannot take over: threads that it does not have, locks that nobody will free."""

from __future__ import annotations

import os
from functools import cache
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

L = TypeVar("L")


class Renewable(Protocol):
    """Has threads, or other things that a forked process does not share."""

    def forked(self) -> None:
        """Called in the new process, before any of its own code runs."""
        ...


_locks: WeakSet[Any] = WeakSet()
_owners: WeakSet[Renewable] = WeakSet()


def freed(lock: L) -> L:
    """The lock; in a forked process it is free, whoever held it at that moment."""
    _listen()
    _locks.add(lock)
    return lock


def renewed(owner: Renewable) -> None:
    """Call the owner's `forked` in every process that is forked while it exists."""
    _listen()
    _owners.add(owner)


@cache
def _listen() -> None:
    # Windows has no fork
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew)


def _renew() -> None:
    for lock in list(_locks):
        # what the standard library does with its own locks
        lock._at_fork_reinit()
    for owner in list(_owners):
        owner.forked()
