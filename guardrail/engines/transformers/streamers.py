"""A caller's streamer, behind the decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def held(arguments: Mapping[str, Any]) -> tuple[Mapping[str, Any], Callable[[], None]]:
    """The arguments of `generate`, with the caller's streamer held back, and what releases it."""
    streamer = HeldStreamer(arguments.get("streamer"))
    held_back = arguments if arguments.get("streamer") is None else {**arguments, "streamer": streamer}
    return held_back, streamer.release


class HeldStreamer:
    """A streamer that gets nothing before the decision, not even the prompt."""

    def __init__(self, streamer: Any) -> None:
        self._streamer, self._open = streamer, False
        self._held: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        """Pass tokens on, or keep them."""
        if self._open:
            self._streamer.put(value)
        else:
            self._held.append(value)

    def end(self) -> None:
        """Pass the end on; without a decision there is none."""
        if self._open:
            self._streamer.end()

    def release(self) -> None:
        """The reply goes on: hand out what was kept."""
        self._open = True
        for value in self._held:
            self._streamer.put(value)
        self._held.clear()
