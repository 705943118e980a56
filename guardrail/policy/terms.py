"""The products that probes are sums of: one matrix product for each layer and kind of state. Pure data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from guardrail.types import Array, Position, Probe, States, normed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """What probes take from the states at one layer and position: <n(state), weights> + offsets.

    `probes` are their places in the plan; weights [k, d_model], offsets [k] and absent [k] (the value of a
    term if there is nothing to read) are float32. A probe's offset is in its last term, so that its terms
    add up to its projection.
    """

    layer: int
    position: Position
    normalised: bool
    probes: tuple[int, ...]
    weights: Array = field(repr=False)
    offsets: Array = field(repr=False)
    absent: Array = field(repr=False)

    def of(self, states: Array) -> Array:
        """[n, k] for states [n, d_model]; a row of NaN has no tool results to read."""
        found = (normed(states) if self.normalised else states) @ self.weights.T + self.offsets
        if self.position != "tool_mean":
            return found
        return np.where(np.isnan(states).all(axis=-1, keepdims=True), self.absent, found)


def projections(probes: Sequence[Probe], states: States) -> Array:
    """[n, probes] for the states [n, d_model] at each place that they read: what an engine computes."""
    layers = sorted({site.layer for probe in probes for site in probe.sites})
    products = [(terms, _product(terms, states)) for layer in layers for terms in terms_at(layer, probes)]
    found = np.zeros((len(products[0][1]), len(probes)), np.float32)
    for terms, product in products:
        found[:, list(terms.probes)] += product
    return found


def _product(terms: Terms, states: States) -> Array:
    return terms.of(states[terms.layer, terms.position])


def terms_at(layer: int, probes: Sequence[Probe]) -> tuple[Terms, ...]:
    """The terms of all probes at a layer; those of plain probes, which read the last token, first."""
    found = [(i, term) for i, probe in enumerate(probes) for term in _terms(probe) if term.layer == layer]
    kinds = sorted({_kind(term) for _, term in found}, key=lambda kind: (kind != ("last", False), kind))
    return tuple(_joined([(i, term) for i, term in found if _kind(term) == kind]) for kind in kinds)


def _kind(term: Terms) -> tuple[Position, bool]:
    return term.position, term.normalised


def _terms(probe: Probe) -> Iterator[Terms]:
    """The terms of one probe, one for each site."""
    sites = probe.sites
    for i, site in enumerate(sites):
        offset = probe.offset if i == len(sites) - 1 else 0.0
        yield Terms(
            layer=site.layer,
            position=site.position,
            normalised=site.normalised,
            probes=(),
            weights=site.weights[None].astype(np.float32),
            offsets=np.array([offset], np.float32),
            absent=np.array([site.absent + offset], np.float32),
        )


def _joined(terms: Sequence[tuple[int, Terms]]) -> Terms:
    first = terms[0][1]
    return Terms(
        layer=first.layer,
        position=first.position,
        normalised=first.normalised,
        probes=tuple(i for i, _ in terms),
        weights=np.concatenate([term.weights for _, term in terms]),
        offsets=np.concatenate([term.offsets for _, term in terms]),
        absent=np.concatenate([term.absent for _, term in terms]),
    )
