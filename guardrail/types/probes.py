"""What detects a trait: linear probes, and the places whose states they read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Position: TypeAlias = Literal["last", "user_mean", "tool_mean", "prompt_mean"]
"""The tokens of a prompt whose states are read.

`last`: the last token. The others are means, in float32, over the tokens of the last user turn's text
(`user_mean`), of the tool results since the last assistant turn (`tool_mean`), and over all tokens of the
prompt, padding excluded (`prompt_mean`).
"""
POSITIONS: tuple[Position, ...] = get_args(Position)
Place: TypeAlias = tuple[int, Position]
"""A layer, and a position there."""


class States(Protocol):
    """States [n, d_model] by place: a mapping, or what looks them up."""

    def __getitem__(self, place: Place, /) -> Array: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSite:
    """One place that a probe reads, with its weights [d_model] float32.

    `normalised`: the state (pooled, if the position is a mean) is divided by its Euclidean norm first.
    `absent`: what the site adds to the projection if there are no tool results to read; only for `tool_mean`.
    """

    layer: int
    position: Position
    weights: Array = field(repr=False)
    normalised: bool = False
    absent: float = 0.0

    @property
    def place(self) -> Place:
        """The layer and position."""
        return self.layer, self.position

    def product(self, states: Array) -> Array:
        """<n(state), weights> for states [..., d_model], n being the unit normalisation or nothing."""
        return (normed(states) if self.normalised else states) @ self.weights


TINY = 1e-12
"""The least norm that a state is divided by."""


def normed(states: Array) -> Array:
    """States [..., d_model] divided by their norms, as a site that asks for it reads them."""
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    return (states / np.maximum(norms, TINY)).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A linear detector: projection = <h, weights> + offset at one layer, weights [d_model] float32.

    `position`, `normalised` and `absent` as for a `ProbeSite`: they say which state h is. `earlier` are more
    sites, at this layer or lower ones, whose products are added.
    """

    trait: str
    layer: int
    weights: Array = field(repr=False)
    offset: float = 0.0
    position: Position = "last"
    normalised: bool = False
    absent: float = 0.0
    earlier: tuple[ProbeSite, ...] = field(default=(), repr=False)

    @property
    def sites(self) -> tuple[ProbeSite, ...]:
        """Everything that is read, by layer; the site at `layer` is the last one."""
        own = ProbeSite(
            layer=self.layer,
            position=self.position,
            weights=self.weights,
            normalised=self.normalised,
            absent=self.absent,
        )
        return (*self.earlier, own)

    @property
    def read_outs(self) -> str:
        """What is read, in words: `user_mean`, or `last (layer 3) + user_mean (layer 5, unit norm)`."""
        return " + ".join(_described(site, self) for site in self.sites)

    @property
    def only_results(self) -> bool:
        """Whether nothing but tool results is read."""
        return all(site.position == "tool_mean" for site in self.sites)

    @property
    def plain(self) -> bool:
        """Whether this is one product with the state of one token, as it is."""
        return self.position == "last" and not self.normalised and not self.earlier

    def projection(self, states: States) -> Array:
        """[n] for the states [n, d_model] at each place. A row of NaN: there is nothing to read."""
        found = np.float32(self.offset)
        for site in self.sites:
            rows = states[site.place]
            nothing = np.isnan(rows).all(axis=-1) & (site.position == "tool_mean")
            found = found + np.where(nothing, np.float32(site.absent), site.product(rows))
        return np.asarray(found, dtype=np.float32)


def _described(site: ProbeSite, probe: Probe) -> str:
    """A site's position, its layer if the probe has several sites, and whether it reads directions only."""
    notes = [f"layer {site.layer}"] * bool(probe.earlier) + ["unit norm"] * site.normalised
    return site.position + (f" ({', '.join(notes)})" if notes else "")
