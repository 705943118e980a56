"""What the streamer of `guard.generate` was given: nothing before the decision is on record."""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any


class Heard:
    """A caller's streamer, and the tokens of the reply that it was given (of one prompt).

    `generate` calls it on the worker's thread, and waits there until the caller's has written the record.
    """

    def __init__(self, streamer: Any) -> None:
        self._streamer, self._prompted = streamer, False
        self._free, self._refused = threading.Event(), False
        self.ids: list[int] = []

    @contextmanager
    def recording(self) -> Generator[None]:
        """Inside, the record is written. If that fails, nothing is handed out."""
        try:
            yield
        except BaseException:
            self._refused = True
            raise
        finally:
            self._free.set()

    def put(self, value: Any) -> None:
        """The prompts first, then one token of every row. Raises CancelledError if there is no record."""
        self._wait()
        self._streamer.put(value)
        if self._prompted and len(value) == 1:
            self.ids += value.tolist()
        self._prompted = True

    def end(self) -> None:
        """No token follows."""
        self._wait()
        self._streamer.end()

    def _wait(self) -> None:
        self._free.wait()
        if self._refused:
            raise CancelledError
