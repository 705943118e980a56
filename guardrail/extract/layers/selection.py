"""Chooses a layer from a sweep. Three rules, all pure functions of the measurements.

Ties go to the earlier layer, at which stopping a prompt is cheaper, then to the earlier position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from guardrail.errors import ExtractionError
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.vectors.provenance import LayerChoice

FLOOR = 75.0
"""The mean coherence that steered replies need (as for the steering results of arXiv 2507.21509)."""
MAX_KL, MIN_INDUCE, DROPPED = 0.1, 0.0, 0.2
"""Nats, log-odds, and the share of last layers to exclude (arXiv 2406.11717, appendix C)."""

Verdict: TypeAlias = str | None
"""Why a candidate is excluded, or None if it is not."""
Rank: TypeAlias = tuple[float, ...]


def by_steering(sweep: Sweep, floor: float | None = FLOOR) -> LayerChoice:
    """The highest trait score under the same coefficient at every layer, among coherent layers.

    Source: arXiv 2507.21509, B.4, which has no floor: None turns it off. Raises ExtractionError if the sweep
    lacks these scores, if no layer is coherent enough, or if no layer raises the trait at all.
    """
    _needs(sweep, "steering", lambda c: c.trait)
    if floor is not None:
        _needs(sweep, "coherence", lambda c: c.coherence, "; choose without a floor, as the paper does")
    gate = "" if floor is None else f" among those with coherence of at least {floor:g}"
    return _choice(
        sweep,
        "steering",
        f"highest trait score when {sweep.coefficient:g} x the layer's vector is added{gate}",
        lambda c: _incoherent(c, floor) or _idle(c, sweep.baseline),
        lambda c: (_known(c.trait),),
    )


def by_separation(sweep: Sweep) -> LayerChoice:
    """The highest AUROC between prompts that ask for the trait and prompts that forbid it; d' decides ties.

    A proxy that costs one forward pass per prompt: the layer that detects best need not steer best.
    """
    _needs(sweep, "separation", lambda c: c.auroc)
    return _choice(
        sweep,
        "separation",
        "highest AUROC between prompts that ask for the trait and that forbid it, then highest d'",
        lambda c: None if c.auroc is not None and c.d_prime is not None else "were not measured",
        lambda c: (_known(c.auroc), _known(c.d_prime)),
    )


def by_refusal(
    sweep: Sweep, max_kl: float = MAX_KL, min_induce: float = MIN_INDUCE, dropped: float = DROPPED
) -> LayerChoice:
    """The refusal-direction rule: of the harmless ablations, the one that leaves least of the trait.

    Excludes the last share `dropped` of the layers, candidates whose KL divergence on plain prompts exceeds
    `max_kl`, and vectors that induce the trait less than `min_induce`. Source: arXiv 2406.11717, section 2.3
    and appendix C; layer n of L is dropped from n = int(L (1 - dropped)) on, as in its code.
    """
    _needs(sweep, "ablation", lambda c: c.ablation)
    first_dropped = int(sweep.layers * (1.0 - dropped))

    def excluded(c: Candidate) -> Verdict:
        if c.ablation is None or c.kl is None or c.induce is None:
            return "were not measured"
        if c.layer >= first_dropped:
            return f"are in the last layers, from {first_dropped} on"
        if c.kl > max_kl:
            return f"have a KL divergence above {max_kl:g}"
        return f"induce the trait below log-odds of {min_induce:g}" if c.induce < min_induce else None

    return _choice(
        sweep,
        "refusal",
        f"least of the trait left by ablation, below layer {first_dropped}, with KL of at most {max_kl:g} "
        f"and inducing log-odds of at least {min_induce:g}",
        excluded,
        lambda c: (-_known(c.ablation),),
    )


SELECTORS: Mapping[str, Callable[[Sweep], LayerChoice]] = {
    "steering": by_steering,
    "separation": by_separation,
    "refusal": by_refusal,
}
"""The rules by name, each with the thresholds of its source."""


def _incoherent(c: Candidate, floor: float | None) -> Verdict:
    if c.trait is None:
        return "could not be judged"
    if floor is None:
        return None
    if c.coherence is None:
        return "have no coherence"
    return f"have coherence below {floor:g}" if c.coherence < floor else None


def _idle(c: Candidate, baseline: Candidate | None) -> Verdict:
    if baseline is None or baseline.trait is None or _known(c.trait) > baseline.trait:
        return None
    return f"do not raise the trait above {baseline.trait:.4g}, its score without any vector"


def _choice(
    sweep: Sweep,
    selector: str,
    rule: str,
    excluded: Callable[[Candidate], Verdict],
    rank: Callable[[Candidate], Rank],
) -> LayerChoice:
    reasons = [excluded(c) for c in sweep.candidates]
    left = [c for c, reason in zip(sweep.candidates, reasons, strict=True) if reason is None]
    if not left:
        raise ExtractionError(f"{sweep.trait}: no layer can be chosen by {selector}: {_counts(reasons)}")
    best = max(left, key=lambda c: (*rank(c), -c.layer, -(c.position or 0)))
    return LayerChoice(
        selector=selector,
        rule=rule,
        layer=best.layer,
        position=best.position,
        layers=tuple(c.layer for c in sweep.candidates),
        scores=tuple(rank(c)[0] if c in left else None for c in sweep.candidates),
        sweep_sha256=sweep.sha256,
    )


def _counts(reasons: Sequence[Verdict]) -> str:
    found = [reason for reason in reasons if reason is not None]
    if not found:
        return "the sweep contains no candidate"
    parts = [f"{found.count(reason)} {reason}" for reason in dict.fromkeys(found)]
    return f"of {len(found)} candidates, {', '.join(parts)}"


def _needs(sweep: Sweep, what: str, value: Callable[[Candidate], float | None], hint: str = "") -> None:
    if all(value(c) is None for c in sweep.candidates):
        raise ExtractionError(f"{sweep.trait}: the sweep has no results for {what}{hint}")


def _known(value: float | None) -> float:
    if value is None:
        raise AssertionError("a candidate without this score was not excluded")
    return value
