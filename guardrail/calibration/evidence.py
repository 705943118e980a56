"""What a calibration was made from, and how its thresholds did on prompts that it was not made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Achieved:
    """How often a threshold fired on held-out benign prompts: `fired` of `n`, with the 95 % interval.

    `name` is a policy id, a trait name, or empty for the whole set; `fpr` is the target, None if the
    threshold was not a rate. `tied` calibration prompts share the score just short of the threshold.
    """

    kind: Literal["trait", "policy", "set"]
    name: str
    fpr: float | None
    n: int
    fired: int
    low: float
    high: float
    tied: int = 0

    @property
    def rate(self) -> float:
        """The share that fired."""
        return self.fired / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a calibration was made from, and how its thresholds did on held-out prompts.

    Counts are of distinct prompts. `source_sha256` is over the prompts in any order. `conversations` and
    `tokens` count the data behind the steering statistics.
    """

    source_sha256: str
    prompts: int
    duplicates: int
    skipped: int
    calibrated: int
    held_out: int
    seed: int
    conversations: int
    tokens: int
    achieved: tuple[Achieved, ...] = ()
