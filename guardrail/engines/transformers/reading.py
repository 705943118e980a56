"""Readings of one batch: the products of states and probes, and their sums. Uses no model."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from guardrail.engines.transformers.firing import Firing
from guardrail.policy.plan import Plan
from guardrail.policy.terms import Terms
from guardrail.types import TINY, Position


class States(Protocol):
    """The states of the prompts of one pass, at one layer after another."""

    def at(self, position: Position, hidden: Tensor) -> Tensor:
        """States [prompts, d_model] of what the layer returned. Zeros if there is nothing to read."""
        ...

    def nothing(self, position: Position) -> list[bool]:
        """[prompts]: whether a prompt has nothing to read."""
        ...


class Reader:
    """The plan's probes as matrices, kept on the devices that have asked for them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        layers = {site.layer for probe in plan.probes for site in probe.sites}
        self._terms = {layer: plan.terms(layer) for layer in layers}
        self._matrices: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor, Tensor]] = {}
        self._firing: dict[torch.device, Firing] = {}
        self._added: dict[torch.device, Tensor] = {}
        self._sums = self._addends()
        self._places = [self._columns.get(index) for index in range(len(plan.probes))]

    def _addends(self) -> list[list[int]] | None:
        """For each column of scores the columns of products that it is the sum of; None if all have one."""
        read = [i for layer in self.plan.layers for terms in self._terms[layer] for i in terms.probes]
        columns: dict[int, list[int]] = {}
        for column, index in enumerate(read):
            columns.setdefault(index, []).append(column)
        # a probe that decides on nothing may have sites at layers that nothing reads
        whole = {i: found for i, found in columns.items() if len(found) == len(self.plan.probes[i].sites)}
        longest = max(map(len, columns.values()), default=1)
        if longest == 1:
            self._columns = {index: found[0] for index, found in whole.items()}
            return None
        self._columns = {index: place for place, index in enumerate(whole)}
        # a tensor needs rows of one length: shorter ones repeat the column of zeros behind the last
        return [found + [len(read)] * (longest - len(found)) for found in whole.values()]

    def products(self, layer: int, hidden: Tensor, pools: States) -> list[Tensor]:
        """[prompts, probes] float32 for each kind of state read of hidden [rows, columns, d_model]."""
        return [self._product(i, terms, hidden, pools) for i, terms in enumerate(self._terms[layer])]

    def _product(self, i: int, terms: Terms, hidden: Tensor, pools: States) -> Tensor:
        weights, offsets, absent = self._matrix(i, terms, hidden.device)
        nothing = pools.nothing(terms.position)
        if all(nothing):
            return absent.expand(len(nothing), -1)
        states = pools.at(terms.position, hidden).float()
        if terms.normalised:
            states = normalize(states, dim=1, eps=TINY)
        found = torch.addmm(offsets, states, weights)
        if not any(nothing):
            return found
        return torch.where(torch.tensor(nothing, device=found.device)[:, None], absent, found)

    def _matrix(self, i: int, terms: Terms, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        key = (terms.layer, i, device)
        if key not in self._matrices:
            parts = (terms.weights.T.copy(), terms.offsets, terms.absent)
            weights, offsets, absent = (torch.from_numpy(part).to(device) for part in parts)
            self._matrices[key] = weights, offsets, absent
        return self._matrices[key]

    def scores(self, products: Sequence[Tensor]) -> Tensor:
        """[prompts, columns]: the products of all layers read, added up to the probes' scores."""
        found = products[0] if len(products) == 1 else torch.cat(list(products), 1)
        if self._sums is None:
            return found
        if found.device not in self._added:
            # once for each device: the host waits for a device to take it
            self._added[found.device] = torch.tensor(self._sums, device=found.device)
        return pad(found, (0, 1))[:, self._added[found.device]].sum(2)

    def again(self, layer: int, states: Tensor) -> Tensor:
        """[rows, probes] of a layer's plain probes, for states [rows, d_model] of last prompt tokens."""
        weights, offsets, _ = self._matrix(0, self._plain(layer), states.device)
        return torch.addmm(offsets, states.float(), weights)

    def _plain(self, layer: int) -> Terms:
        terms = self._terms[layer][0]
        assert (terms.position, terms.normalised) == ("last", False), "only plain probes are read again"
        return terms

    def firing(self, device: torch.device) -> Firing:
        """The rules that steer, on a device, for scores of all layers read, side by side."""
        if device not in self._firing:
            self._firing[device] = Firing(self.plan, self._columns, device)
        return self._firing[device]

    def in_order(self, scores: Sequence[float]) -> list[float]:
        """Scores of all layers read, side by side, in the order of the plan's probes; NaN if not read."""
        return [nan if place is None else scores[place] for place in self._places]

    def spread(self, layer: int, scores: Sequence[float]) -> list[float]:
        """Scores that `again` gave, among all of the plan's probes; NaN elsewhere."""
        found = dict(zip(self._plain(layer).probes, scores, strict=True))
        return [found.get(index, nan) for index in range(len(self._places))]
