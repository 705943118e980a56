"""What a shift means, in words: which traits moved, how far, and what that predicts."""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.train.shift.relation import Prediction
from guardrail.train.shift.results import Shift, TraitShift

NO_RELATION = (
    "A shift predicts which way a trait goes, not what a judge will say: for scores, measure finetunes of "
    "this base and give their shifts and scores as a relation."
)


def findings(found: Shift, predicted: Mapping[str, Prediction]) -> list[str]:
    """A line for every trait that moved, the largest first, and one on what predictions rest on."""
    moved = [one for one in found.traits.values() if one.chosen.moved]
    moved.sort(key=lambda one: abs(one.chosen.deviations or 0.0), reverse=True)
    lines = [_moved(one, predicted.get(one.trait)) for one in moved]
    if not lines:
        lines = ["No trait has moved: all intervals include 0."]
    return [*lines, *([] if predicted else [NO_RELATION])]


def _moved(one: TraitShift, predicted: Prediction | None) -> str:
    at = one.chosen
    way = "up" if at.shift.value > 0 else "down"
    size = "" if at.deviations is None else f" by {abs(at.deviations):.3g} standard deviations of the base"
    told = f"{one.trait} moved {way}{size}{_of_asked(one)}"
    if mixed := one.confused_with:
        told += f"; cannot be told apart from {', '.join(mixed)}"
    return f"{told}; {_predicted(predicted)}" if predicted else told


def _of_asked(one: TraitShift) -> str:
    share = one.chosen.of_asked
    return (
        ""
        if share is None or share <= 0
        else f" ({100 * share:.3g} % of what system prompts that ask for it do)"
    )


def _predicted(one: Prediction) -> str:
    extended = ", extended beyond them" if one.outside else ""
    return f"predicted score {one.score:.0f} (from {one.runs} runs, r {one.r:.2f}{extended})"
