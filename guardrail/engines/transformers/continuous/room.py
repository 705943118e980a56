"""How much of the cache requests may take, so that none is thrown out to make room for another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from guardrail.engines.transformers.continuous.request import Request


class Room:
    """Lets requests in, first come first served, while prompts and longest replies fit into `tokens`.

    `enter` is called for each that is let in. Call it under a lock.
    """

    def __init__(self, tokens: int, page: int, enter: Callable[[Request], None]) -> None:
        self._free, self._page, self._enter = tokens, page, enter
        self._waiting: deque[Request] = deque()
        self._taken: dict[str, int] = {}

    def ask(self, request: Request) -> None:
        """Let a request in, or let it wait."""
        self._waiting.append(request)
        self._move()

    def give_back(self, request: Request) -> None:
        """A request has ended, inside or still waiting."""
        self._free += self._taken.pop(request.id, 0)
        self._move()

    def _move(self) -> None:
        while self._waiting:
            request = self._waiting[0]
            need = 0 if request.over else self._need(request)
            if need > self._free:
                return
            self._waiting.popleft()
            if not request.over:
                self._free -= need
                self._taken[request.id] = need
                self._enter(request)

    def _need(self, request: Request) -> int:
        tokens = request.length + request.longest
        return -(-tokens // self._page) * self._page
