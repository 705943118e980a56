"""Runs of a model with values of another run put in, many of them in one forward pass.

All rows of a batch are the same prompt, each with a patch of its own. Layers below the first one that is
patched were computed before, and are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.engines.transformers.activations import Change, Component, Site, Start
from guardrail.errors import ModelError
from guardrail.extract.subject import Subject
from guardrail.interpret.patching.patches import Patch, Shape


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
    order = sorted(range(len(placed)), key=lambda i: placed[i].patch.layers[0])
    for batch in subject.batches([base.ids.shape[1]] * len(placed)):
        rows = [order[i] for i in batch]
        yield rows, _run(subject, base, donor, [placed[i] for i in rows])


def _run(subject: Subject, base: Recorded, donor: Recorded, placed: Sequence[Placed]) -> Tensor:
    first = min(one.patch.layers[0] for one in placed)
    ids = base.ids.expand(len(placed), -1)
    start = None
    if first > 1:
        start = Start(first - 1, base.values[Site(first - 1)].expand(len(placed), -1, -1))
    return subject.activations.run(
        ids, None, _changes(subject, base, donor, placed), start, last=True
    ).float()


def _changes(
    subject: Subject, base: Recorded, donor: Recorded, placed: Sequence[Placed]
) -> dict[Site, Change]:
    put: dict[Site, list[int]] = defaultdict(list)
    held: dict[Site, list[int]] = defaultdict(list)
    for row, one in enumerate(placed):
        for site in one.patch.sites:
            put[site].append(row)
        for site in one.patch.frozen(subject.layers):
            held[site].append(row)

    def changing(site: Site) -> Change:
        def change(values: Tensor) -> None:
            for row in put[site]:
                _put(subject, values[row], donor.values[site], placed[row], site)
            if held[site]:
                values[held[site], -1] = base.values[site][-1]

        return change

    return {site: changing(site) for site in {*put, *held}}


def _put(subject: Subject, values: Tensor, donated: Tensor, placed: Placed, site: Site) -> None:
    """Write into values [tokens, width] of one row."""
    here, head = list(placed.columns), placed.patch.head
    if head is None:
        values[here] = donated[here]
        return
    size = subject.activations.head_size(site.layer)
    part = slice(head * size, (head + 1) * size)
    values[here, part] = donated[here, part]
