"""Signals that end a command. What is prepared for Ctrl-C is prepared for SIGTERM and SIGHUP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGTERM", "SIGHUP")
"""SIGHUP comes when a terminal is closed. Windows has none."""
PAIR_S = 10.0
"""A terminal that is closed sends two, and systemd may send both: a second one is no other wish."""


class Ended(KeyboardInterrupt):
    """Somebody else than the user at the keyboard has ended the command."""


class Ending:
    """Raises Ended in the main thread when a signal comes. `number` is the signal."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since, self._process = 0.0, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # a process that somebody forked: it ends as it would have without this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.number is None or time.monotonic() - self._since > PAIR_S:
            self.number, self._since = number, time.monotonic()
            raise Ended


def ended_in_order(command: Callable[[], int]) -> int:
    """Run a command: its exit code, or 128 + the signal that ended it."""
    with _heard() as ending:
        try:
            code = command()
        except (Ended, OSError):
            # OSError: a terminal that is closed cannot be written to either
            if ending.number is None:
                raise
            code = 0
    return code if ending.number is None else 128 + ending.number


@contextmanager
def _heard() -> Generator[Ending]:
    """Signals that are ignored, as by nohup, stay ignored."""
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    ending = Ending()
    free = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in free:
        signal.signal(number, ending)
    try:
        yield ending
    finally:
        for number in free:
            signal.signal(number, signal.SIG_DFL)
