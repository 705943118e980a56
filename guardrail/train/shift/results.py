"""What a shift is, as plain data: by trait and layer, with intervals, and what it is mixed up with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from guardrail.statistics.intervals import Estimate

Kind: TypeAlias = Literal["full weights", "adapter", "same weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How a model differs from the base that it was finetuned from.

    `changed`: the median over weight matrices of |tuned - base| / |base|, from a sample of their numbers;
    None for adapters, which leave the matrices alone. `cosine`: the median of their cosines.
    """

    kind: Kind
    weights: str
    changed: float | None = None
    cosine: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShift:
    """The shift at one layer, in units of activations.

    `shift`: along the trait's unit vector. `own`: what remains of it once what all other traits did is taken
    out (see `mixing`); None if they cannot be separated. `spread`: the standard deviation of the base's
    projections over the same prompts. `asked`: how far the base moves if system prompts ask for the trait;
    None if no definition says how to ask.
    """

    layer: int
    shift: Estimate
    own: Estimate | None
    spread: float
    asked: float | None

    @property
    def deviations(self) -> float | None:
        """The shift in standard deviations of the base; None if the base does not vary."""
        return self.shift.value / self.spread if self.spread > 0 else None

    @property
    def of_asked(self) -> float | None:
        """The share of what system prompts that ask for the trait do; None if they hardly move the base."""
        return self.shift.value / self.asked if self.asked and self.asked > self.spread else None

    @property
    def moved(self) -> bool:
        """Whether the interval of the shift leaves out 0."""
        return self.shift.low > 0 or self.shift.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What another trait explains of a trait's shift, at the trait's layer.

    If only the other trait had moved, this one would seem to move by `ratio` times as much. `remaining` is
    the shift less that. `apart`: the interval of what remains lies above half of the shift; otherwise the
    shifts of the two cannot be told apart. `cosine`: that of the vectors.
    """

    other: str
    cosine: float
    ratio: float
    remaining: Estimate
    apart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitShift:
    """One trait: its shift at every layer that can be read. `layer` is the one to quote."""

    trait: str
    layer: int
    prompts: int
    layers: tuple[LayerShift, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def chosen(self) -> LayerShift:
        """The shift at the trait's layer."""
        return self.at(self.layer)

    def at(self, layer: int) -> LayerShift:
        """The shift at a layer. Raises KeyError for one that cannot be read."""
        found = {one.layer: one for one in self.layers}
        return found[layer]

    @property
    def confused_with(self) -> tuple[str, ...]:
        """The traits that a shift of this trait cannot be told apart from; none if it has not moved."""
        if not self.chosen.moved:
            return ()
        return tuple(one.other for one in self.overlaps if not one.apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far a model has moved from another along every trait. Names are those that the user gave."""

    base: str
    tuned: str
    since: str
    """What the shift is measured from: the base, or an earlier checkpoint."""
    descent: Descent
    vectors_sha256: str
    prompts_sha256: str
    traits: Mapping[str, TraitShift]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"traits": {name: _json(trait) for name, trait in self.traits.items()}}


def _json(trait: TraitShift) -> dict[str, Any]:
    one = trait.chosen
    head = {
        "moved": one.moved,
        "deviations": one.deviations,
        "of_asked": one.of_asked,
        "confused_with": trait.confused_with,
    }
    return asdict(trait) | head
