"""Sets harmless prompts aside for a calibration: nothing is fitted on them or chosen by them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import ConfigError
from guardrail.extract.fit.prepared import Prepared
from guardrail.extract.fit.rows import LabelledPrompt
from guardrail.policy.reach import enough, shown

SHARE = 0.3
HELD_OUT = 0.2
"""What `guardrail calibrate` holds out by default."""
FEWEST = 125
"""Harmless prompts that a rate of 1 % takes: 99, after a calibration has held out a fifth of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parted:
    """`rest` to fit on, `aside` to calibrate on; no near duplicates across."""

    rest: tuple[LabelledPrompt, ...]
    aside: tuple[LabelledPrompt, ...]

    def describe(self, given: int) -> str:
        """What became of the prompts, for people."""
        lost = given - len(self.rest) - len(self.aside)
        text = f"{len(self.aside)} harmless prompts are set aside, {len(self.rest)} are fitted on"
        if not lost:
            return text
        return f"{text}; {lost} have no part: nearly the same as one set aside, or of its `group` or `pair`"

    def shortage(self, fpr: float) -> str | None:
        """What a threshold at this rate will be if the prompts set aside are too few to show it."""
        kept = len(self.aside) - math.floor(HELD_OUT * len(self.aside))
        if kept >= (needed := enough(fpr)):
            return None
        more = math.ceil((needed / (1 - HELD_OUT) - len(self.aside)) / SHARE)
        return (
            f"with {kept} harmless prompts to calibrate on, a threshold at {100 * fpr:g} % is beyond all of "
            f"them and may be too high to find anything; add {more} harmless prompts, give "
            f"`guardrail calibrate` your own traffic as well, or set --fpr {shown(kept):g}"
        )

    def lines(self) -> str:
        """The prompts set aside, as `guardrail calibrate --benign` reads them."""
        turns = [[message.as_dict() for message in row.messages] for row in self.aside]
        return "".join(json.dumps({"messages": one}, ensure_ascii=False) + "\n" for one in turns)


def set_aside(given: Prepared, seed: int) -> Parted:
    """About 30 % of the harmless prompts, at least 125. What is near to them is in neither part.

    Raises ConfigError if less than half of the harmless prompts would be left.
    """
    harmless = np.array([not any(row.labels.values()) and not row.tools for row in given.rows])
    wanted = max(round(SHARE * harmless.sum()), FEWEST)
    if 2 * wanted > harmless.sum():
        raise ConfigError(
            f"--benign-out: {harmless.sum()} harmless prompts without tools are too few to set {FEWEST} "
            f"aside; it takes {2 * FEWEST}. Add more, or fit on all without --benign-out, and give "
            f"`guardrail calibrate --benign` {FEWEST} others, such as your own traffic"
        )
    order = np.random.default_rng(seed).permutation(np.flatnonzero(harmless))
    taken = order[:wanted]
    near = np.isin(given.groups, given.groups[taken])
    return Parted(
        rest=_rows(given, ~near),
        aside=_rows(given, np.isin(np.arange(len(given.rows)), taken)),
    )


def _rows(given: Prepared, kept: NDArray[np.bool_]) -> tuple[LabelledPrompt, ...]:
    return tuple(given.rows[i] for i in np.flatnonzero(kept).tolist())
