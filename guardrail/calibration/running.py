"""Running statistics over the tokens of a reply, in numpy, for calibrations.

The engine computes the same on the device, token by token. A test compares the two.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Statistic = Literal["mean", "max", "ema"]


def running(values: NDArray[np.floating], statistic: Statistic, window: int) -> NDArray[np.float64]:
    """[tokens] -> [tokens]: the statistic after each token. Windows are shorter at the beginning.

    `mean` and `max` cover the last `window` tokens; `ema` starts at the first token and moves by
    2 / (window + 1) of the difference.
    """
    tokens = np.asarray(values, dtype=np.float64)
    if statistic == "ema":
        return _ema(tokens, 2 / (window + 1))
    summary = np.mean if statistic == "mean" else np.max
    windows = (tokens[max(0, i + 1 - window) : i + 1] for i in range(len(tokens)))
    return np.asarray([summary(values) for values in windows], dtype=np.float64)


def highest(values: NDArray[np.floating], statistic: Statistic, window: int) -> float:
    """The highest value of the statistic in a reply: a policy fires if its threshold is at most this."""
    return float(running(values, statistic, window).max())


def lowest(values: NDArray[np.floating], statistic: Statistic, window: int) -> float:
    """Like `highest`, for policies that fire below. Here `max` is the lowest token of the window."""
    return -highest(-np.asarray(values), statistic, window)


def _ema(tokens: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    out = np.empty_like(tokens)
    value = tokens[0] if len(tokens) else 0.0
    for i, token in enumerate(tokens):
        value += share * (token - value)
        out[i] = value
    return out
