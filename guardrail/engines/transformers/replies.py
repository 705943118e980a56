"""What a plan reads from generated tokens, and the result of following one reply. Uses no model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.policy.plan import Plan
from guardrail.types import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How one reply went: the decision on it (None if no policy is about it), and counts.

    `kept`: how many tokens it had when it was stopped, None if it was not. `turn`: the means of
    the plan's `reply_probes` over the tokens read, None if they were not wanted or nothing was read.
    """

    decision: Decision | None = None
    kept: int | None = None
    turn: tuple[float, ...] | None = None
    steered_passes: int = 0


class ReplyReader:
    """The plan's `reply_probes` as matrices, kept on the devices that have asked for them.

    Columns are ordered by layer. `watched` are the columns of response conditions, `turns` those of probes
    of conversations. A condition that fires below is read with its sign turned, so that all fire above.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        probes = plan.reply_probes
        self.layers = tuple(sorted({probe.layer for probe in probes}))
        self.order = sorted(range(len(probes)), key=lambda i: probes[i].layer)
        found = {c.reading: (rule.monitor, c) for rule in plan.reply_rules for c in rule.conditions}
        self.watched = [column for column, i in enumerate(self.order) if i in found]
        self.turns = [column for column, i in enumerate(self.order) if i not in found]
        conditions = [found[self.order[column]] for column in self.watched]
        self.monitors = [monitor for monitor, _ in conditions if monitor]
        self.signs = [1.0 if c.fires == "above" else -1.0 for _, c in conditions]
        self.thresholds = [s * c.threshold for s, (_, c) in zip(self.signs, conditions, strict=True)]
        place = {self.order[column]: i for i, column in enumerate(self.watched)}
        self.rules = [
            [place[c.reading] for c in rule.conditions if c.reading in place] for rule in plan.reply_rules
        ]
        """For each reply rule its conditions, as places among `watched`."""
        self._matrices: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def scores(self, layer: int, states: Tensor) -> Tensor:
        """[rows, probes of this layer] float32 for states [rows, d_model]: one matrix product."""
        key = (layer, states.device)
        if key not in self._matrices:
            self._matrices[key] = self._matrix(layer, states.device)
        weights, offsets = self._matrices[key]
        return torch.addmm(offsets, states.float(), weights)

    def _matrix(self, layer: int, device: torch.device) -> tuple[Tensor, Tensor]:
        signs = dict(zip(self.watched, self.signs, strict=True))
        probes = [(self.plan.reply_probes[i], signs.get(column, 1.0)) for column, i in enumerate(self.order)]
        here = [(probe, sign) for probe, sign in probes if probe.layer == layer]
        weights = torch.stack([torch.from_numpy(probe.weights) * sign for probe, sign in here], 1)
        offsets = torch.tensor(
            [probe.offset * sign for probe, sign in here], dtype=torch.float32, device="cpu"
        )
        return weights.to(device), offsets.to(device)

    def values(self, extremes: list[float]) -> tuple[float, ...]:
        """The watched columns as scores in the order of `reply_probes`; NaN for other probes."""
        found = [float("nan")] * len(self.order)
        for column, sign, value in zip(self.watched, self.signs, extremes, strict=True):
            found[self.order[column]] = sign * value
        return tuple(found)

    def means(self, sums: list[float], tokens: float) -> tuple[float, ...]:
        """The means over a reply in the order of `reply_probes`; watched probes are NaN."""
        found = [float("nan")] * len(self.order)
        for column, total in zip(self.turns, sums, strict=True):
            found[self.order[column]] = total / tokens
        return tuple(found)
