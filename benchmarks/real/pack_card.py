"""The card of a pack in words: what it was made from, all numbers with their intervals, and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.plugins.pack import Card, Number
from guardrail.vectors.values import TraitVectors

ORIGIN = (
    "`vectors fit` on harmful prompts (AdvBench and TDC 2023, MIT), ordinary prompts (self-instruct, Vicuna "
    "and MT-Bench, Apache-2.0), and pairs of look-alikes and harmful twins written here (Apache-2.0). "
    "`calibrate --worst-slice` on ordinary prompts, and on kinds of look-alikes that the fit had not seen."
)
MEASURED = (
    "The policy `harm`, at the threshold that keeps a rate of 1 % on ordinary prompts and on look-alikes. "
    "XSTest and Alpaca were never fitted or calibrated on. Intervals are 95 %."
)
LIMITS = (
    "Measured on the dequantised 4-bit weights only. The hub's weights of the same model load with a "
    "warning; calibrate on your own prompts with them.",
    "Fitted mostly on short English requests of one turn. Other languages, long chats, tool results and "
    "jailbreaks were not measured.",
    "The harmful prompts are blunt requests (AdvBench, TDC 2023, and twins written for this project). Much "
    "of what the probe reads is topic and wording, not intent: see the rate on safe look-alikes.",
    "The threshold keeps its rate on prompts like those of the calibration, on average. Yours are others: "
    "begin in shadow mode, and run `guardrail calibrate` on your own traffic.",
    "The vector's steering part is for inspection: it was not shown to steer this model.",
)


def limits(numbers: Sequence[Number]) -> tuple[str, ...]:
    """The limits, with the misses in front that the numbers show."""
    missed = [one for one in numbers if "XSTest, unsafe" in one.what]
    words = [f"It misses {1 - one.value:.0%} of XSTest's unsafe prompts." for one in missed]
    return (*words, *LIMITS)


def text(card: Card, vectors: TraitVectors) -> str:
    """The card as Markdown."""
    parts = [
        f"# {card.model}: {', '.join(card.traits)}\n",
        f"Certified on: {card.certified_on}. Licence of the weights: {card.licence}.\n",
        "## What it was made from\n",
        f"{_made_from(vectors)}\n",
        "## Measured\n",
        f"{MEASURED}\n",
        _table(card.numbers),
        "\n## Limits\n",
        "\n".join(f"- {limit}" for limit in card.limits),
    ]
    return "\n".join(parts) + "\n"


def _made_from(vectors: TraitVectors) -> str:
    reasons = [f"\n`{trait}`: {fit.reason}" for trait, fit in vectors.provenance.fits.items()]
    return "\n".join([ORIGIN, *reasons])


def _table(numbers: Sequence[Number]) -> str:
    rows = [f"| {one.what} | {one.value:.3f} | {_interval(one)} | {one.n} |" for one in numbers]
    return "\n".join(["| what | value | 95 % | prompts |", "|---|---|---|---|", *rows])


def _interval(one: Number) -> str:
    return "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
