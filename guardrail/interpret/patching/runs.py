"""Runs of a model with values of another run put in, many of them in one forward pass.

All rows of a batch are the same prompt, each with a patch of its own. Layers below the first one that is
patched were computed before, and are left out; so are the tokens before the first one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.engines.transformers.activations import Change, Component, Prefix, Site, Start
from guardrail.errors import ModelError
from guardrail.extract.subject import Subject
from guardrail.interpret.patching.patches import Patch, Shape

WORTH, TOGETHER = 16, 192
"""Patches for which it pays to compute once what stands before them, and to look for more that do."""
SAME = 1e-4
"""How far logits may be from those of a whole pass, absolute and relative, for a prefix to be used."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run: the values of all sites [tokens, width], and the last token's logits [vocabulary]."""

    ids: Tensor
    values: Mapping[Site, Tensor]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Placed:
    """A patch with the tokens of one pair that it is put at."""

    patch: Patch
    columns: Sequence[int]


def shape_of(subject: Subject) -> Shape:
    """What can be patched in a model."""
    try:
        subject.activations.head_size(1)
    except ModelError:
        return Shape(subject.layers, 0)
    return Shape(subject.layers, subject.activations.heads)


def record(subject: Subject, ids: Sequence[int]) -> Recorded:
    """Run a prompt and keep what it computes."""
    kept: dict[Site, Tensor] = {}
    rows = torch.tensor([list(ids)], device=subject.device)
    shape = shape_of(subject)
    parts: list[Component] = ["resid", "mlp", "attn", *(["heads"] if shape.heads else [])]  # pyright: ignore[reportAssignmentType]
    sites = [Site(0), *(Site(layer, part) for layer in range(1, shape.layers + 1) for part in parts)]
    logits = subject.activations.run(rows, None, {site: _keeper(kept, site) for site in sites}, last=True)
    return Recorded(rows, kept, logits[0].float())


def _keeper(kept: dict[Site, Tensor], site: Site) -> Change:
    def keep(values: Tensor) -> None:
        kept[site] = values[0].clone()

    return keep


def patched(
    subject: Subject, base: Recorded, donor: Recorded, placed: Sequence[Placed]
) -> Iterator[tuple[list[int], Tensor]]:
    """Batch by batch: which patches, and the logits [rows, vocabulary] of the base's run with them."""
    runs = _Runs(subject, base, donor)
    for first, group in _by_first(placed, base.ids.shape[1]):
        prefix = _prefix(subject, base, first) if len(group) >= WORTH else None
        tokens = base.ids.shape[1] - (prefix.tokens if prefix else 0)
        order = sorted(group, key=lambda i: placed[i].patch.layers[0])
        for batch in subject.batches([tokens] * len(order)):
            rows = [order[i] for i in batch]
            yield rows, runs.logits([placed[i] for i in rows], prefix)


def _by_first(placed: Sequence[Placed], tokens: int) -> Iterator[tuple[int, list[int]]]:
    """Patches that change nothing before a token, with that token.

    Neighbouring tokens go together until there are enough patches.
    """
    firsts = [min(column % tokens for column in one.columns) for one in placed]
    group: list[int] = []
    for i in sorted(range(len(placed)), key=lambda i: -firsts[i]):
        if len(group) >= TOGETHER and firsts[i] < firsts[group[-1]]:
            yield firsts[group[-1]], group
            group = []
        group.append(i)
    if group:
        yield firsts[group[-1]], group


def _prefix(subject: Subject, base: Recorded, first: int) -> Prefix | None:
    """The tokens before the first that is changed; None if the model answers otherwise behind them."""
    if not (made := subject.activations.prefix(base.ids[:, :first]) if first else None):
        return None
    logits = subject.activations.run(base.ids[:, first:], None, {}, prefix=made, last=True)[0].float()
    return made if torch.allclose(logits, base.logits, rtol=SAME, atol=SAME) else None


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of the base with values of the donor."""

    subject: Subject
    base: Recorded
    donor: Recorded

    def logits(self, placed: Sequence[Placed], prefix: Prefix | None) -> Tensor:
        """[rows, vocabulary], one row for each patch."""
        first, left = min(one.patch.layers[0] for one in placed), prefix.tokens if prefix else 0
        start = None
        if first > 1:
            states = self.base.values[Site(first - 1)][left:]
            start = Start(first - 1, states.expand(len(placed), -1, -1))
        ids = self.base.ids[:, left:].expand(len(placed), -1)
        run = self.subject.activations.run
        return run(ids, None, self._changes(placed), start, prefix=prefix, last=True).float()

    def _changes(self, placed: Sequence[Placed]) -> dict[Site, Change]:
        put: dict[Site, list[int]] = defaultdict(list)
        held: dict[Site, list[int]] = defaultdict(list)
        for row, one in enumerate(placed):
            for site in one.patch.sites:
                put[site].append(row)
            for site in one.patch.frozen(self.subject.layers):
                held[site].append(row)

        def changing(site: Site) -> Change:
            def change(values: Tensor) -> None:
                for row in put[site]:
                    self._put(values[row], placed[row], site)
                if held[site]:
                    values[held[site], -1] = self.base.values[site][-1]

            return change

        return {site: changing(site) for site in {*put, *held}}

    def _put(self, values: Tensor, placed: Placed, site: Site) -> None:
        """Write into values [tokens, width] of one row, which may be the last tokens alone."""
        tokens, donated = self.base.ids.shape[1], self.donor.values[site]
        # from the end, where tokens stand alike in a run without its prefix
        here, head = [column % tokens - tokens for column in placed.columns], placed.patch.head
        if head is None:
            values[here] = donated[here]
            return
        size = self.subject.activations.head_size(site.layer)
        part = slice(head * size, (head + 1) * size)
        values[here, part] = donated[here, part]
