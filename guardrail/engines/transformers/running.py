"""Running statistics over the tokens of a batch of replies, as tensors that stay on the device.

The same numbers as `guardrail.calibration.running`, one token at a time and without asking the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from guardrail.policy.model import Monitor


class Running(Protocol):
    """Takes the scores [rows, columns] of one token; gives the statistic so far, of the same shape."""

    def __call__(self, scores: Tensor) -> Tensor: ...


class WindowMean:
    """The mean of the last `window` tokens, of all of them while there are fewer."""

    def __init__(self, window: int, like: Tensor) -> None:
        self._ring = like.new_zeros((window, *like.shape))
        self._seen = 0

    def __call__(self, scores: Tensor) -> Tensor:
        self._ring[self._seen % len(self._ring)] = scores
        self._seen += 1
        return self._ring.sum(0) / min(self._seen, len(self._ring))


class WindowMax:
    """The highest of the last `window` tokens."""

    def __init__(self, window: int, like: Tensor) -> None:
        self._ring = like.new_full((window, *like.shape), -math.inf)
        self._seen = 0

    def __call__(self, scores: Tensor) -> Tensor:
        self._ring[self._seen % len(self._ring)] = scores
        self._seen += 1
        return self._ring.amax(0)


class Ema:
    """The exponential moving average that starts at the first token and moves by 2 / (window + 1)."""

    def __init__(self, window: int, like: Tensor) -> None:
        self._share = 2 / (window + 1)
        self._value: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        self._value = scores if self._value is None else torch.lerp(self._value, scores, self._share)
        return self._value


KINDS = {"mean": WindowMean, "max": WindowMax, "ema": Ema}


class Statistics:
    """One running statistic for each column of the scores; columns with the same monitor are one tensor."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        keys = [(monitor.statistic, monitor.window) for monitor in monitors]
        groups = {key: [i for i, other in enumerate(keys) if other == key] for key in keys}
        self._columns = list(groups.items())
        self._groups: list[tuple[Tensor, Running]] = []

    def __call__(self, scores: Tensor) -> Tensor:
        """[rows, columns] -> [rows, columns]"""
        if not self._groups:
            self._groups = [
                (torch.tensor(columns, device=scores.device), KINDS[kind](window, scores[:, columns]))
                for (kind, window), columns in self._columns
            ]
        if len(self._groups) == 1:
            return self._groups[0][1](scores)
        out = torch.empty_like(scores)
        for columns, running in self._groups:
            out[:, columns] = running(scores[:, columns])
        return out
