"""What a shift predicts: the judged trait score, from a line through earlier finetunes of the same base.

A file of the runs that were measured: shift and later score of each, by trait. The line is fitted here, by
least squares, so that its interval is that of the data and nobody's claim. It holds for one base, one vector
file, one judge and one kind of training, and only between the smallest and the largest shift of its runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from guardrail.errors import ConfigError
from guardrail.files import json_text
from guardrail.statistics.intervals import TAIL, Estimate
from guardrail.train.shift.results import Shift

FEWEST = 5
"""The fewest runs for a line with an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One earlier finetune: its shift at the trait's layer, and its mean judged score (0 to 100)."""

    name: str
    shift: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A judged score with its 95 % prediction interval, that of a new run (not of the line).

    `r`: Pearson's r of the runs. `outside`: the shift lies outside of theirs, so the line is extended.
    """

    score: Estimate
    runs: int
    r: float
    outside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitRelation:
    """The runs of one trait, at one layer."""

    layer: int
    runs: tuple[Run, ...]

    @property
    def usable(self) -> bool:
        """Whether there are enough runs, of different shifts."""
        return len(self.runs) >= FEWEST and len({run.shift for run in self.runs}) > 1

    def predict(self, shift: float) -> Prediction:
        """Scores below 0 and above 100 do not exist and are cut off. Raises ConfigError if not `usable`."""
        if not self.usable:
            raise ConfigError(f"a relation needs at least {FEWEST} runs, and not all of the same shift")
        x, y = (np.array([getattr(run, name) for run in self.runs]) for name in ("shift", "score"))
        line = _line(x, y, shift)
        value, low, high = (float(np.clip(one, 0, 100)) for one in line)
        flat = np.ptp(y) == 0
        return Prediction(
            score=Estimate(value, low, high),
            runs=len(x),
            r=0.0 if flat else float(np.corrcoef(x, y)[0, 1]),
            outside=not x.min() <= shift <= x.max(),
        )


def _line(x: np.ndarray, y: np.ndarray, at: float) -> tuple[float, float, float]:
    """(value, low, high) at a point: least squares with Student's interval of a new observation."""
    from scipy.special import stdtrit

    slope, offset = np.polyfit(x, y, 1)
    left = len(x) - 2
    spread = np.sqrt(np.sum((y - offset - slope * x) ** 2) / left)
    far = 1 + 1 / len(x) + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)
    half = float(stdtrit(left, 1 - TAIL) * spread * np.sqrt(far))
    value = float(offset + slope * at)
    return value, value - half, value + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Earlier finetunes of one base, by trait. `base_weights`: those of the base's fingerprint."""

    format: Literal["guardrail-shift-relation"] = "guardrail-shift-relation"
    version: Literal[1] = 1
    base_weights: str
    vectors_sha256: str
    prompts_sha256: str
    judge: str
    traits: Mapping[str, TraitRelation]
    notes: str = ""

    @classmethod
    def of(
        cls,
        runs: Mapping[str, tuple[Shift, Mapping[str, float]]],
        base_weights: str,
        judge: str,
        notes: str = "",
    ) -> Self:
        """From the shift and the mean judged scores of each run, all measured with the same meter."""
        shifts = [shift for shift, _ in runs.values()]
        if not shifts or len({(one.vectors_sha256, one.prompts_sha256) for one in shifts}) != 1:
            raise ConfigError("a relation needs runs that were measured with the same vectors and prompts")
        traits = {
            trait: TraitRelation(
                layer=one.layer,
                runs=tuple(
                    Run(name=name, shift=shift.traits[trait].chosen.shift.value, score=scores[trait])
                    for name, (shift, scores) in runs.items()
                    if trait in scores
                ),
            )
            for trait, one in shifts[0].traits.items()
        }
        return cls(
            base_weights=base_weights,
            vectors_sha256=shifts[0].vectors_sha256,
            prompts_sha256=shifts[0].prompts_sha256,
            judge=judge,
            traits={trait: one for trait, one in traits.items() if one.runs},
            notes=notes,
        )

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file written by `save`. Raises ConfigError for anything else."""
        try:
            return json_text.validated(cls, json_text.read(path))
        except ValueError as error:
            raise ConfigError(
                f"{path}: cannot be read as a relation of shifts and scores: {error}"
            ) from error

    def check(self, base_weights: str, shift: Shift) -> None:
        """Raises ConfigError if the relation is of another base, vector file or set of prompts."""
        pairs = {
            "base model": (self.base_weights, base_weights),
            "vector file": (self.vectors_sha256, shift.vectors_sha256),
            "set of prompts": (self.prompts_sha256, shift.prompts_sha256),
        }
        if other := [what for what, (theirs, ours) in pairs.items() if theirs != ours]:
            raise ConfigError(f"the relation was measured with another {' and another '.join(other)}")

    def predictions(self, shift: Shift) -> dict[str, Prediction]:
        """By trait, for the traits that both have at the same layer."""
        known = {name: one for name, one in shift.traits.items() if name in self.traits}
        return {
            name: self.traits[name].predict(one.chosen.shift.value)
            for name, one in known.items()
            if self.traits[name].layer == one.layer and self.traits[name].usable
        }
