"""What is computed on a device, on its way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """One copy of values [rows, columns], which nobody waits for until it is looked at.

    On CUDA it goes to pinned memory behind what was queued so far; elsewhere it is made on looking.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied = values, None
        self._rows: list[list[float]] | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(values.device))

    @property
    def arrived(self) -> bool:
        """Whether looking at the values would not wait."""
        return self._copied is None or self._copied.query()

    def rows(self) -> list[list[float]]:
        """The values. Waits for this copy, and for nothing that was queued after it."""
        if self._rows is None:
            if self._copied is not None:
                self._copied.synchronize()
            self._rows = self._values.tolist()
        return self._rows
