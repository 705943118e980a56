"""Copying values from a device to the host without waiting for them."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """One copy of values [rows, columns]. The host does not wait for it before it looks.

    On CUDA the copy goes to pinned memory, queued behind the work so far. Elsewhere it is made on looking.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied = values, None
        self._rows: list[list[float]] | None = None
        if values.device.type == "cuda":
            # a copy to pageable memory would wait although it is asked not to
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            # synchronising the stream instead would wait for the rest of the prompt, which is queued by then
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(values.device))

    @property
    def arrived(self) -> bool:
        """Whether the values can be looked at without waiting."""
        return self._copied is None or self._copied.query()

    def rows(self) -> list[list[float]]:
        """The values. Waits for this copy, but not for work that was queued after it."""
        if self._rows is None:
            if self._copied is not None:
                self._copied.synchronize()
            self._rows = self._values.tolist()
        return self._rows
