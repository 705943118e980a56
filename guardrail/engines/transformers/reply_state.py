"""What is known of the replies of one batch while they are generated, as tensors on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from guardrail.engines.transformers.replies import ReplyReader
from guardrail.engines.transformers.running import Statistics
from guardrail.policy.decide_reply import Observed


class ReplyState:
    """What is known of each reply so far, on the device: extremes, which rules are quiet, sums."""

    def __init__(self, reader: ReplyReader, like: Tensor, watching: bool) -> None:
        rows, device = len(like), like.device
        self.reader, self._watching = reader, watching
        self._statistics = Statistics(reader.monitors)
        self._thresholds = torch.tensor(reader.thresholds, dtype=torch.float32, device=device)
        self._lowest = torch.finfo(like.dtype).min
        self._extremes = like.new_full((rows, len(reader.watched)), self._lowest)
        self.quiet = torch.ones((rows, len(reader.rules)), dtype=torch.bool, device=device)
        """[rows, reply rules]: the rules that have not fired. What cannot be compared counts as fired."""
        self._ages = torch.zeros((rows, len(reader.rules)), dtype=torch.int64, device=device)
        self._watched = torch.tensor(reader.watched, device=device) if reader.turns else None
        self._turns = torch.tensor(reader.turns, device=device) if reader.turns else None
        self._sums = like.new_zeros((rows, len(reader.turns)))
        self._counts = like.new_zeros(rows)
        self._rules = _Rules(reader, device)

    def update(self, scores: Tensor, alive: Tensor | None) -> None:
        """Take in one token of every reply, scores [rows, columns]; `alive` [rows] are those that go on."""
        if self._turns is not None:
            self._sum(scores[:, self._turns], alive)
        if not self._watching:
            return
        watched = scores if self._watched is None else scores[:, self._watched]
        # infinities become NaN, which is not below any threshold: what cannot be compared is never quiet
        current = self._statistics(torch.add(watched, watched, alpha=0))
        if alive is not None:
            current = current.masked_fill(~alive[:, None], self._lowest)
        self._extremes = torch.maximum(self._extremes, current)
        self.quiet &= self._rules.quiet(current < self._thresholds)
        self._ages += self.quiet

    def _sum(self, scores: Tensor, alive: Tensor | None) -> None:
        if alive is None:
            self._sums += scores
            self._counts += 1
        else:
            self._sums += scores.masked_fill(~alive[:, None], 0.0)
            self._counts += alive

    def observed(self, row: int, tokens: int) -> Observed:
        """What the host may know of one reply."""
        quiet, ages = self.quiet[row].tolist(), self._ages[row].tolist()
        extremes = self._extremes[row].tolist()
        return Observed(
            tokens=tokens if extremes[0] != self._lowest else 0,
            fired=tuple(None if q else age + 1 for q, age in zip(quiet, ages, strict=True)),
            values=self.reader.values(extremes),
        )

    def turn(self, row: int) -> tuple[float, ...] | None:
        """The means of the conversation probes over one reply; None if nothing was read."""
        tokens = float(self._counts[row])
        return self.reader.means(self._sums[row].tolist(), tokens) if tokens else None


class _Rules:
    """Which rules are quiet, from the conditions that are."""

    def __init__(self, reader: ReplyReader, device: torch.device) -> None:
        self._columns = reader.rules
        self._all = [rule.require_all for rule in reader.plan.reply_rules]
        single = all(len(columns) == 1 for columns in self._columns)
        order = [columns[0] for columns in self._columns]
        self._order = torch.tensor(order, device=device) if single else None
        self._same = single and order == list(range(len(reader.watched)))

    def quiet(self, below: Tensor) -> Tensor:
        """[rows, conditions] -> [rows, rules]"""
        if self._same:
            return below
        if self._order is not None:
            return below[:, self._order]
        # "all of" needs every condition to fire, so one quiet condition keeps the rule quiet
        pairs = zip(self._columns, self._all, strict=True)
        return torch.stack(
            [below[:, columns].any(1) if every else below[:, columns].all(1) for columns, every in pairs], 1
        )
