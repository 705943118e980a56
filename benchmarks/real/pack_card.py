"""The card of a pack in words: what it was made from, all numbers with their intervals, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.plugins.pack import Card, Number
from guardrail.vectors.values import TraitVectors

WEIGHTS = (
    "Measured on the dequantised 4-bit weights only. The hub's weights of the same model load with a "
    "warning; calibrate on your own prompts with them."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What a card says beside its numbers: what the pack was made from, how it was measured, limits."""

    origin: str
    measured: str
    limits: tuple[str, ...]


def text(card: Card, vectors: TraitVectors, words: Words) -> str:
    """The card as Markdown."""
    parts = [
        f"# {card.model}: {', '.join(card.traits)}\n",
        f"Certified on: {card.certified_on}. Licence of the weights: {card.licence}.\n",
        "## What it was made from\n",
        f"{_made_from(vectors, words.origin)}\n",
        "## Measured\n",
        f"{words.measured}\n",
        _table(card.numbers),
        "\n## Limits\n",
        "\n".join(f"- {limit}" for limit in card.limits),
    ]
    return "\n".join(parts) + "\n"


def _made_from(vectors: TraitVectors, origin: str) -> str:
    source = vectors.provenance
    reasons = {trait: fit.reason for trait, fit in source.fits.items()}
    reasons |= {trait: f"layer {one.layer}, {one.rule}" for trait, one in source.layer_choices.items()}
    return "\n".join([origin, *(f"\n`{trait}`: {reason}" for trait, reason in reasons.items())])


def _table(numbers: Sequence[Number]) -> str:
    rows = [f"| {one.what} | {one.value:.3f} | {_interval(one)} | {one.n} |" for one in numbers]
    return "\n".join(["| what | value | 95 % | n |", "|---|---|---|---|", *rows])


def _interval(one: Number) -> str:
    return "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
