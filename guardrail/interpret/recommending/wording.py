"""What a recommendation says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from guardrail.interpret.recommending.ranking import Evidence, Recommendation
from guardrail.statistics.intervals import Estimate

NAMES: Mapping[Evidence, str] = {
    "causal": "the causal effect",
    "separation": "separation",
    "steering": "steering",
}


LEGEND = (
    "causal effect: the run without the trait gets the other run's projection on the vector; taken away: the "
    "other way round; 0: it answers as before, 1: as the other run. AUROC: of the probe. weakest: the "
    "evidence that says least for a layer, as a share of what it reaches at its best layer (AUROC above .5, "
    "the judged score above that without steering)."
)


def sentences(one: Recommendation) -> Iterator[str]:
    """The recommendation, then where evidence disagrees or is missing, then what was left out."""
    yield _chosen(one)
    if one.unsteered is not None:
        yield f"without steering, the judge's mean is {judged(one.unsteered, one.unsteered_interval)} of 100"
    yield from _disagreement(one)
    for name, reason in one.silent.items():
        yield f"{NAMES[name]} says nothing: {reason}"
    if one.correlations:
        ranks = "; ".join(f"{pair} {rank:.2f}" for pair, rank in one.correlations.items())
        yield f"rank correlation over layers: {ranks}"
    yield _counted(one)


def _chosen(one: Recommendation) -> str:
    if one.layer is None:
        return f"{one.trait}: no layer can be recommended"
    if one.layer == one.current:
        return f"{one.trait}: layer {one.layer}, as now; no other is clearly better; {agreement(one)}"
    now = f" (`layer: auto` is {one.current})" if one.current is not None else ""
    return f"{one.trait}: layer {one.layer}{now}; {agreement(one)}"


def agreement(one: Recommendation) -> str:
    """How much of the evidence stands behind the layer."""
    asked = len(one.best)
    names = [NAMES[name] for name in one.best]
    found = " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
    if one.disagreeing:
        return f"{asked - len(one.disagreeing)} of {asked} kinds of evidence agree"
    return f"{found} alone" if asked == 1 else f"{found} reach at least half of their best there"


def _disagreement(one: Recommendation) -> Iterator[str]:
    for name in one.disagreeing:
        share = one.at.shares[name] if one.at else 0.0
        yield (
            f"{NAMES[name]} disagrees: it is best at layer {one.best[name]}, and layer {one.layer} has only "
            f"{100 * share:.0f} % of that"
        )


def _counted(one: Recommendation) -> str:
    left = "; ".join(f"{count} left out: {reason}" for reason, count in one.left_out.items())
    return f"{one.contrasts} pairs of prompts patched" + (f"; {left}" if left else "")


def judged(score: float, interval: tuple[float, float] | None) -> str:
    """A judge's mean, with its interval if it has one."""
    return f"{Estimate(score, *interval):.1f}" if interval else f"{score:.1f}"
