"""Mean projections over runs of tokens: one forward pass per batch, up to the last layer that is needed.

Rows are batched by length and padded on the right. Means and products are taken in float32 on the model's
device, so that only [rows, runs, traits] numbers leave it. Knows nothing of chat templates or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from guardrail.engines import Span
from guardrail.engines.transformers.activations import Site
from guardrail.engines.transformers.batches import averaging
from guardrail.errors import ExtractionError
from guardrail.extract.subject import Subject
from guardrail.train.screening.directions import Direction
from guardrail.types import Array


class Projector:
    """Projects what a model reads on directions, wherever the subject's runner computes."""

    def __init__(self, subject: Subject, given: Sequence[Direction]) -> None:
        self.subject, self.directions = subject, tuple(given)
        self.tokens = 0
        """How many tokens were read so far."""

    def __call__(self, rows: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]]) -> Array:
        """[rows, spans, directions] float32: <mean of the states over a span [start, end), unit vector>.

        Every row has as many spans. Raises ExtractionError if a projection is not finite.
        """
        found = np.zeros((len(rows), len(spans[0]) if spans else 0, len(self.directions)), np.float32)
        batches = list(self.subject.batches([len(row) for row in rows]))
        jobs = [
            Projecting(rows=[rows[i] for i in batch], spans=[spans[i] for i in batch], given=self.directions)
            for batch in batches
        ]
        for batch, projected in zip(batches, self.subject.runner.map(jobs), strict=True):
            found[batch] = projected
            self.tokens += sum(len(rows[i]) for i in batch)
        if not np.isfinite(found).all():
            raise ExtractionError("the model's activations are not finite; try --dtype float32")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Projecting:
    """Reads token ids, and projects the mean states over each row's spans of tokens."""

    rows: Sequence[Sequence[int]]
    spans: Sequence[Sequence[Span]]
    given: Sequence[Direction]

    def run(self, subject: Subject) -> Array:
        """[rows, spans, directions] float32. Rows are padded on the right."""
        ids, mask = subject.local.padded(self.rows, left=False)
        weights = averaging([[(span,) for span in row] for row in self.spans], ids.shape[1])
        sites = [Site(layer) for layer in sorted({one.layer for one in self.given})]
        states = subject.activations.read(ids, mask, sites, weights.to(subject.device))
        found = np.empty((*weights.shape[:2], len(self.given)), np.float32)
        for site in sites:
            columns = [i for i, one in enumerate(self.given) if one.layer == site.layer]
            units = torch.from_numpy(np.stack([self.given[i].unit for i in columns], axis=1))
            found[:, :, columns] = (states[site] @ units.to(states[site].device)).cpu().numpy()
        return found
