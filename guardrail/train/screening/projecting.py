"""Mean projections over runs of tokens: one forward pass per batch, up to the last layer that is needed.

Rows are batched by length and padded on the right. Means and products are taken in float32 on the model's
device, so that only [rows, runs, traits] numbers leave it. Knows nothing of chat templates or files.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Projects what a model reads on directions."""

    def __init__(self, subject: Subject, given: Sequence[Direction]) -> None:
        self.subject, self.directions = subject, tuple(given)
        self._layers = sorted({one.layer for one in given})
        self._columns = {
            layer: [i for i, one in enumerate(given) if one.layer == layer] for layer in self._layers
        }
        self._matrices = {
            layer: torch.from_numpy(np.stack([given[i].unit for i in columns], axis=1)).to(subject.device)
            for layer, columns in self._columns.items()
        }
        self.tokens = 0
        """How many tokens were read so far."""

    def __call__(self, rows: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]]) -> Array:
        """[rows, spans, directions] float32: <mean of the states over a span [start, end), unit vector>.

        Every row has as many spans. Raises ExtractionError if a projection is not finite.
        """
        found = np.zeros((len(rows), len(spans[0]) if spans else 0, len(self.directions)), np.float32)
        for batch in self.subject.batches([len(row) for row in rows]):
            found[batch] = self._batch([rows[i] for i in batch], [spans[i] for i in batch])
            self.tokens += sum(len(rows[i]) for i in batch)
        if not np.isfinite(found).all():
            raise ExtractionError("the model's activations are not finite; try --dtype float32")
        return found

    def _batch(self, rows: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]]) -> Array:
        subject = self.subject
        ids, mask = subject.local.padded(rows, left=False)
        weights = averaging([[(span,) for span in row] for row in spans], ids.shape[1]).to(subject.device)
        states = subject.activations.read(ids, mask, [Site(layer) for layer in self._layers], weights)
        found = torch.empty(*weights.shape[:2], len(self.directions), dtype=torch.float32, device="cpu")
        for layer, columns in self._columns.items():
            means = states[Site(layer)]
            found[:, :, columns] = (means @ self._matrices[layer].to(means.device)).cpu()
        return found.numpy()
