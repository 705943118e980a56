"""Thresholds of projection differences and judged scores, with the weights of what lies above them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import ConfigError
from guardrail.files import json_text
from guardrail.files.whole import write_whole
from guardrail.statistics.intervals import Estimate, Numbers
from guardrail.train.screening.meter import Form
from guardrail.train.screening.results import Screened

Rule: TypeAlias = Literal["percentile", "conformal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Rows whose difference is above `difference`, or whose judged score is above `judge`, are rejected.

    `tail`, `judge_tail`: clean values above them, in ascending order, evenly spaced in rank.
    """

    layer: int
    difference: float
    judge: float | None = None
    tail: tuple[float, ...] = ()
    judge_tail: tuple[float, ...] = ()

    def weights(self, differences: Numbers, judged: Numbers) -> Numbers:
        """[rows]: 1 up to the threshold; above it, the part of the clean tail that is as high."""
        found = _weights(differences, self.difference, self.tail)
        if self.judge is None:
            return found
        return np.minimum(found, _weights(judged, self.judge, self.judge_tail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Thresholds by trait, and where they are from. `rate`: the share of clean rows above one of them.

    `joint`: the share of the clean set that any trait rejects.
    """

    traits: Mapping[str, Threshold]
    form: Form
    vectors_sha256: str
    rule: Rule
    rate: Estimate
    joint: Estimate
    clean: str
    clean_rows: int
    version: Literal[1] = field(default=1)

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises ConfigError for anything else."""
        try:
            return json_text.validated(cls, json_text.read(path))
        except ValueError as error:
            raise ConfigError(f"{path}: no thresholds of `guardrail data screen`: {error}") from error

    def check(self, found: Screened) -> None:
        """Raises ConfigError for thresholds that are not about what was screened."""
        if self.form != found.form:
            raise ConfigError(f"the thresholds are for the form `{self.form}`, not `{found.form}`")
        if self.vectors_sha256 != found.vectors_sha256:
            raise ConfigError("the thresholds were made with other vectors; screen the clean set again")
        for one in found.directions:
            known = self.traits.get(one.trait)
            if known is None:
                raise ConfigError(f"there is no threshold for `{one.trait}`; screen the clean set again")
            if known.layer != one.layer:
                raise ConfigError(
                    f"`{one.trait}`: the threshold is for layer {known.layer}, not for {one.layer}"
                )

    def rejecting(self, found: Screened) -> list[tuple[str, tuple[float, ...]]]:
        """For every trait, an SQL condition on a row that is rejected, and its values."""
        self.check(found)
        columns = found.columns(found.form)
        return [_condition(i, columns[i], self.traits[trait]) for i, trait in enumerate(found.traits)]

    def above(self, found: Screened) -> Mapping[str, Estimate]:
        """The share of a data set's rows that each trait rejects, with its interval (Clopper-Pearson)."""
        conditions = self.rejecting(found)
        return {t: found.share(*one) for t, one in zip(found.traits, conditions, strict=True)}

    def rejected(self, found: Screened) -> Estimate:
        """The share of rows that any trait rejects."""
        conditions = self.rejecting(found)
        values = [value for _, own in conditions for value in own]
        return found.share(" OR ".join(one for one, _ in conditions), values)

    def weights(self, traits: Sequence[str], differences: Numbers, judged: Numbers) -> Numbers:
        """[rows]: the lowest of a row's weights for the traits. Both arrays are [rows, traits]."""
        own = [self.traits[t].weights(differences[:, i], judged[:, i]) for i, t in enumerate(traits)]
        return np.minimum.reduce(own)

    def beyond(self, traits: Sequence[str], differences: Numbers, judged: Numbers) -> NDArray[np.bool_]:
        """[rows, traits]: whether a trait rejects a row, as both arrays are. NaN is not above anything."""
        found = np.zeros(differences.shape, dtype=np.bool_)
        for i, one in enumerate(self.traits[trait] for trait in traits):
            found[:, i] = differences[:, i] > one.difference
            if one.judge is not None:
                found[:, i] |= judged[:, i] > one.judge
        return found


def _condition(i: int, column: str, one: Threshold) -> tuple[str, tuple[float, ...]]:
    if one.judge is None:
        return f"({column} > ?)", (one.difference,)
    return f"({column} > ? OR ifnull(judge{i} > ?, 0))", (one.difference, one.judge)


def _weights(values: Numbers, threshold: float, tail: Sequence[float]) -> Numbers:
    as_high = len(tail) - np.searchsorted(np.asarray(tail, dtype=np.float64), values, side="left")
    # a missing score, NaN, is not above anything
    return np.where(values > threshold, (1 + as_high) / (1 + len(tail)), 1.0)
