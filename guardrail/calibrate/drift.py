"""Checks whether live scores still match the calibration. Pure: audit records in, a report out.

The rule is fixed in advance. A condition's firing rate has drifted if the 99 % Clopper-Pearson intervals of
the live rate and of the calibrated one do not overlap; the upper end of the calibrated interval is first
raised by the share of live traffic that may be harmful (default 0: all traffic counts as benign). A trait's
scores have drifted if there are at least 200 of them, the two-sample Kolmogorov-Smirnov test gives p < .001,
and the distance exceeds the harmful share by at least .05, so that a negligible shift does not count in a
long log. The population stability index (PSI) over benign deciles is reported but does not decide. Repeated
prompts count once; the rest are assumed independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from guardrail.calibration.benign import Benign, Tail
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.plugins.audit import AuditRecord
from guardrail.statistics.conformal import observed_fpr
from guardrail.types import Score

CONFIDENCE = 0.99
MIN_SCORES = 200
MAX_P = 0.001
MIN_DISTANCE = 0.05
MIN_SHARE = 1e-4
"""The share that an empty decile counts as in the PSI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateDrift:
    """One condition of one policy at one threshold: its live rate and its calibrated rate."""

    policy: str
    trait: str
    layer: int
    threshold: float
    n: int
    fired: int
    low: float
    high: float
    calibrated_low: float
    calibrated_high: float
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDrift:
    """One trait at one layer: the distance between live and benign scores."""

    trait: str
    layer: int
    n: int
    mean: float
    sd: float
    ks: float
    p: float
    psi: float
    drifted: bool

    @property
    def too_few(self) -> bool:
        """Whether so few scores cannot show a drift: that none was found says nothing."""
        return self.n < MIN_SCORES


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """`records`: requests with scores from this calibration's vectors; others are left out."""

    records: int
    repeated: int
    without_scores: int
    other_vectors: int
    other_calibration: int
    harmful_share: float
    rates: tuple[RateDrift, ...]
    scores: tuple[ScoreDrift, ...]

    @property
    def distance(self) -> float | None:
        """The largest distance of a trait's live scores from the benign ones, beyond the harmful share.

        None if no trait has enough scores to tell.
        """
        known = [one.ks - self.harmful_share for one in self.scores if not one.too_few]
        return max(0.0, *known) if known else None

    @property
    def drifted(self) -> bool:
        """Whether any rate or any distribution has drifted."""
        return any(one.drifted for one in (*self.rates, *self.scores))


def drift(
    records: Iterable[AuditRecord], calibration: Calibration, harmful_share: float = 0.0
) -> DriftReport:
    """Compare an audit log with a calibration. Raises CalibrationError if there is nothing to compare."""
    if not 0 <= harmful_share < 1:
        raise CalibrationError(f"the harmful share must be at least 0 and below 1, not {harmful_share}")
    log = _Log(calibration)
    for record in records:
        log.add(record)
    if not log.used:
        raise CalibrationError(_nothing(log))
    return DriftReport(
        records=len(log.used),
        repeated=log.repeated,
        without_scores=log.without_scores,
        other_vectors=log.other_vectors,
        other_calibration=log.other_calibration,
        harmful_share=harmful_share,
        rates=tuple(_rate(key, found, calibration, harmful_share) for key, found in log.rates.items()),
        scores=tuple(
            score_drift(trait, layer, list(values.values()), calibration, harmful_share)
            for (trait, layer), values in log.scores.items()
        ),
    )


Condition = tuple[str, str, int, float]


class _Log:
    """Scores grouped by policy condition and by trait, with each prompt counted once."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self.used: set[str] = set()
        self.sha256 = calibration.sha256
        self.repeated = self.without_scores = self.other_vectors = self.other_calibration = 0
        self.rates: dict[Condition, list[Score]] = {}
        self.scores: dict[tuple[str, int], dict[str, float]] = {}
        self._seen: set[tuple[str, Condition]] = set()

    def add(self, record: AuditRecord) -> None:
        known = [s for s in record.decision.scores if self._benign(s) is not None]
        if record.decision.vectors_sha256 != self.calibration.vectors_sha256:
            self.other_vectors += 1
        elif record.decision.calibration_sha256 not in ("", self.sha256):
            self.other_calibration += 1
        elif not known:
            self.without_scores += 1
        else:
            fresh = [self._score(record.prompt_sha256, score) for score in known]
            self.used.add(record.prompt_sha256)
            self.repeated += not any(fresh)

    def _score(self, prompt: str, score: Score) -> bool:
        condition = (score.policy, score.trait, score.layer or 0, score.threshold)
        if (prompt, condition) in self._seen:
            return False
        self._seen.add((prompt, condition))
        self.rates.setdefault(condition, []).append(score)
        self.scores.setdefault((score.trait, score.layer or 0), {})[prompt] = score.score
        return True

    def _benign(self, score: Score) -> Benign | None:
        return self.calibration.probes.get(score.trait, {}).get(score.layer or 0)


def _nothing(log: _Log) -> str:
    if log.other_vectors:
        return f"no record was scored with this calibration's vectors ({log.other_vectors} with others)"
    if log.other_calibration:
        return f"no record was scored with this calibration ({log.other_calibration} with another)"
    return f"no record has scores of this calibration's traits ({log.without_scores} have none)"


def _rate(
    key: Condition, found: Sequence[Score], calibration: Calibration, harmful_share: float
) -> RateDrift:
    fired = sum(score.fired for score in found)
    return rate_drift(key, fired, len(found), _tail(found), calibration, harmful_share)


def rate_drift(
    key: Condition, fired: int, n: int, tail: Tail, calibration: Calibration, harmful_share: float
) -> RateDrift:
    """Whether a condition holds more or less often than on the calibration's prompts."""
    policy, trait, layer, threshold = key
    benign = calibration.probes[trait][layer]
    _, low, high = observed_fpr(fired, n, CONFIDENCE)
    beyond = benign.beyond(benign.mean + threshold * benign.sd, tail)
    _, least, most = observed_fpr(min(beyond, benign.n), benign.n, CONFIDENCE)
    allowed = most * (1 - harmful_share) + harmful_share
    return RateDrift(
        policy=policy,
        trait=trait,
        layer=layer,
        threshold=threshold,
        n=n,
        fired=fired,
        low=low,
        high=high,
        calibrated_low=least,
        calibrated_high=most,
        drifted=low > allowed or high < least * (1 - harmful_share),
    )


def _tail(found: Sequence[Score]) -> Tail:
    """The side on which a policy fires, inferred from the scores because the log does not state it."""
    above = sum(score.fired == (score.score >= score.threshold) for score in found)
    return "upper" if 2 * above >= len(found) else "lower"


def score_drift(
    trait: str, layer: int, scores: ArrayLike, calibration: Calibration, harmful_share: float
) -> ScoreDrift:
    """The Kolmogorov-Smirnov distance and the PSI between live and calibration scores."""
    from scipy.stats import kstwobign

    benign = calibration.probes[trait][layer]
    live = np.sort(np.asarray(scores, dtype=np.float64))
    distance = ks_distance(live, benign)
    effective = len(live) * benign.n / (len(live) + benign.n)
    p = float(kstwobign.sf(distance * np.sqrt(effective)))
    far = distance >= MIN_DISTANCE + harmful_share
    return ScoreDrift(
        trait=trait,
        layer=layer,
        n=len(live),
        mean=float(live.mean()),
        sd=float(live.std(ddof=1)) if len(live) > 1 else 0.0,
        ks=distance,
        p=p,
        psi=psi(live, benign),
        drifted=len(live) >= MIN_SCORES and p < MAX_P and far,
    )


def ks_distance(live: NDArray[np.float64], benign: Benign) -> float:
    """The largest gap between the two distribution functions; live: [n] sorted scores."""
    steps = np.arange(len(live) + 1) / len(live)
    expected = distribution(live, benign)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


def distribution(scores: NDArray[np.float64], benign: Benign) -> NDArray[np.float64]:
    """The benign distribution function at scores: interpolated linearly between percentiles."""
    points = (np.asarray(benign.percentiles) - benign.mean) / benign.sd
    return np.interp(scores, points, np.arange(101) / 100, left=0.0, right=1.0)


def psi(live: NDArray[np.float64], benign: Benign) -> float:
    """The population stability index over the benign deciles: sum of (p - q) ln(p / q)."""
    edges = (np.asarray(benign.percentiles)[10:100:10] - benign.mean) / benign.sd
    counts = np.bincount(np.searchsorted(edges, live, side="right"), minlength=10)
    found = np.maximum(counts / len(live), MIN_SHARE)
    return float(np.sum((found - 0.1) * np.log(found / 0.1)))
