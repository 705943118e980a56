"""One trait's vector: what steers and what detects at every layer, and the checks on the way in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import VectorError
from guardrail.types import POSITIONS, Array, Position, Probe, ProbeSite


@dataclass(frozen=True, slots=True, eq=False)
class TraitVector:
    """One trait: the difference of mean activations with and without it, not normalised.

    steering: [L + 1, d_model] float32. probe: [L + 1, d_model] float32 and offset: [L + 1] float32 detect the
    trait: projection = <h, probe[l]> + offset[l]. `layer` is the layer that an evaluation chose, used for
    `layer: auto`; None if none was chosen. `unusable` rows are never read (such as row L of an official file,
    taken after the final norm). Source: Chen et al. 2025, arXiv 2507.21509, 2.2.

    `position` says which tokens the rows of `probe` read, `normalised` whether their states are divided by
    their norm. With `sites`, the projection at `layer` is a sum instead: of the products of all sites (the
    last one at `layer`), and offset[layer]; probe[layer] is not read. `probe_at` gives what detects.
    """

    trait: str
    steering: Array = field(repr=False)
    probe: Array = field(repr=False)
    offset: Array = field(repr=False)
    layer: int | None = None
    unusable: tuple[int, ...] = ()
    position: Position = "last"
    normalised: bool = False
    sites: tuple[ProbeSite, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_trait_vector(self)

    @classmethod
    def from_difference(cls, trait: str, difference: NDArray[np.floating], layer: int | None = None) -> Self:
        """A vector whose probe is its own unit direction at each layer."""
        steering = np.asarray(difference, dtype=np.float32)
        offset = np.zeros(len(steering), dtype=np.float32)
        return cls(trait, steering, unit(steering), offset, layer)

    @property
    def layers(self) -> int:
        """L, the number of decoder blocks."""
        return len(self.steering) - 1

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return self.steering.shape[1]

    def usable(self, layer: int) -> bool:
        """Whether policies may read and steer at this layer."""
        return 1 <= layer <= self.layers and layer not in self.unusable

    def probe_at(self, layer: int) -> Probe:
        """What detects the trait at a layer."""
        *earlier, last = self.sites if self.sites and layer == self.layer else (self._site(layer),)
        return Probe(
            trait=self.trait,
            layer=layer,
            weights=last.weights,
            offset=float(self.offset[layer]),
            position=last.position,
            normalised=last.normalised,
            absent=last.absent,
            earlier=tuple(earlier),
        )

    def _site(self, layer: int) -> ProbeSite:
        # one tool_mean site without tool results reads as 0, the mean of a centred probe
        absent = -float(self.offset[layer]) if self.position == "tool_mean" else 0.0
        return ProbeSite(
            layer=layer,
            position=self.position,
            weights=self.probe[layer],
            normalised=self.normalised,
            absent=absent,
        )

    def incremental(self) -> Array:
        """[L + 1, d_model]: v_l - v_(l-1), with row 0 zero (arXiv 2507.21509, J.3)."""
        return np.diff(self.steering, axis=0, prepend=self.steering[:1]).astype(np.float32)

    def cosine(self, other: TraitVector) -> NDArray[np.float32]:
        """[L + 1]: the cosine of the steering directions at each layer."""
        return np.sum(unit(self.steering) * unit(other.steering), axis=1)

    def __add__(self, other: TraitVector) -> TraitVector:
        return self._combined(other, f"{self.trait}+{other.trait}", 1.0)

    def __sub__(self, other: TraitVector) -> TraitVector:
        return self._combined(other, f"{self.trait}-{other.trait}", -1.0)

    def __mul__(self, factor: float) -> TraitVector:
        return replace(self, steering=(self.steering * factor).astype(np.float32))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TraitVector:
        return self * (1.0 / divisor)

    def __neg__(self) -> TraitVector:
        return self * -1.0

    def _combined(self, other: TraitVector, trait: str, sign: float) -> TraitVector:
        if self.steering.shape != other.steering.shape:
            raise VectorError(f"shapes differ: {self.steering.shape} and {other.steering.shape}")
        vector = TraitVector.from_difference(trait, self.steering + sign * other.steering)
        return replace(vector, unusable=tuple(sorted({*self.unusable, *other.unusable})))


def unit(rows: Array) -> Array:
    """Rows divided by their Euclidean norm; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0).astype(np.float32)


def check_trait_vector(vector: TraitVector) -> None:
    """Raises VectorError for wrong shapes, non-finite numbers, zero rows and an invalid layer."""
    trait, shape = vector.trait, vector.steering.shape
    if len(shape) != 2 or shape[0] < 2:
        raise VectorError(f"{trait}: steering must be [layers + 1, d_model], not {shape}")
    if vector.probe.shape != shape or vector.offset.shape != shape[:1]:
        raise VectorError(
            f"{trait}: probe {vector.probe.shape} and offset {vector.offset.shape} do not fit {shape}"
        )
    for name, values in (("steering", vector.steering), ("probe", vector.probe), ("offset", vector.offset)):
        if not np.isfinite(values).all():
            raise VectorError(f"{trait}: {name} has NaN or infinite numbers")
    for name, values in (("steering", vector.steering), ("probe", vector.probe)):
        zero = [row for row in range(1, shape[0]) if vector.usable(row) and not values[row].any()]
        if zero:
            raise VectorError(f"{trait}: {name} has zero norm at layer {', '.join(map(str, zero))}")
    if vector.layer is not None and not vector.usable(vector.layer):
        raise VectorError(f"{trait}: layer {vector.layer} is not a usable layer (1 to {shape[0] - 1})")
    if vector.position not in POSITIONS:
        raise VectorError(f"{trait}: position {vector.position!r} is not one of {', '.join(POSITIONS)}")
    if vector.sites:
        check_sites(vector)


def check_sites(vector: TraitVector) -> None:
    """Raises VectorError for sites that cannot be read, are out of order or twice there."""
    trait, sites = vector.trait, vector.sites
    for site in sites:
        check_site(vector, site)
    layers, places = [site.layer for site in sites], [site.place for site in sites]
    if layers != sorted(layers):
        raise VectorError(f"{trait}: sites must be in the order of their layers, not {layers}")
    if twice := [place for place in places if places.count(place) > 1]:
        raise VectorError(f"{trait}: {twice[0][1]} at layer {twice[0][0]} is read by two sites")
    if layers[-1] != vector.layer:
        raise VectorError(f"{trait}: layer {vector.layer} is not that of the last site, {layers[-1]}")


def check_site(vector: TraitVector, site: ProbeSite) -> None:
    """Raises VectorError for one site that cannot be read in this vector's model."""
    where = f"{vector.trait}: the site at layer {site.layer}"
    if not vector.usable(site.layer):
        raise VectorError(f"{where} has no usable layer (1 to {vector.layers})")
    if site.position not in POSITIONS:
        raise VectorError(f"{where}: position {site.position!r} is not one of {', '.join(POSITIONS)}")
    if site.weights.shape != (vector.d_model,):
        raise VectorError(f"{where}: weights {site.weights.shape} do not fit a width of {vector.d_model}")
    if not (np.isfinite(site.weights).all() and np.isfinite(site.absent)):
        raise VectorError(f"{where} has NaN or infinite numbers")
    if not site.weights.any():
        raise VectorError(f"{where} has zero norm")
    if site.absent and site.position != "tool_mean":
        raise VectorError(f"{where}: `absent` is for tool_mean only; {site.position} is always there")
