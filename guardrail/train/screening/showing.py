"""The rows with the highest differences, with their texts, for a person to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrail.train.screening.encoding import Encoded
from guardrail.train.screening.results import Screened, Worst
from guardrail.train.screening.screening import Screener


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A row with the prompt and reply that its difference is of. `base`: the model's own reply, if known."""

    worst: Worst
    asked: str
    reply: str
    base: str | None = None


def shown(screener: Screener, found: Screened, most: int = 5) -> Mapping[str, Sequence[Shown]]:
    """For each trait its worst rows. Reads the data, and those rows' activations, once more."""
    worst = {trait: found.worst(trait, most) for trait in found.traits}
    samples = _samples(screener, found, {one.number for rows in worst.values() for one in rows})
    return {
        trait: [_shown(screener, one, samples[one.number], found.traits.index(trait)) for one in rows]
        for trait, rows in worst.items()
    }


def _samples(screener: Screener, found: Screened, numbers: set[int]) -> Mapping[int, Sequence[Encoded]]:
    reader = screener.reader()
    return {
        number: reader.encoded(value)
        for chunk in found.data.chunks()
        for number, value in zip(chunk.numbers, chunk.values, strict=True)
        if number in numbers
    }


def _shown(screener: Screener, worst: Worst, sample: Sequence[Encoded], trait: int) -> Shown:
    meter = screener.meter()
    alone = meter([(one,) for one in sample])
    best = max(range(len(sample)), key=lambda i: alone[i].difference(meter.form)[trait])
    one = sample[best]
    own = meter.references([one.prompt])[one.prompt].text if meter.references else None
    return Shown(worst=worst, asked=one.exchange.asked, reply=one.exchange.reply, base=own)
