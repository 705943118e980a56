"""What a lens shows at the last token of prompts, after each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guardrail.extract.subject import Subject
from guardrail.interpret.lens.unembedding import Unembedding
from guardrail.types import Array

Translate: TypeAlias = Callable[[int, Tensor], Tensor]
"""What a lens does to states [n, d_model] of a layer before they are unembedded."""
ROWS = 64
"""States that are unembedded at once: vocabularies are large."""
PARTS = ("tokens", "probabilities", "divergences")
"""The arrays of a reading."""


def as_it_is(_layer: int, states: Tensor) -> Tensor:
    """The logit lens translates nothing."""
    return states


@dataclass(frozen=True, slots=True)
class Reading:
    """Each [prompts, L]; column l - 1 is layer l.

    tokens: the likeliest token; probabilities: its probability; divergences: KL(model's output || lens), in
    nats.
    """

    tokens: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    divergences: NDArray[np.float64]

    def hits(self, golds: Sequence[frozenset[int]]) -> NDArray[np.bool_]:
        """[prompts, L]: whether the likeliest token is among the prompt's right ones."""
        return np.array([np.isin(row, list(gold)) for row, gold in zip(self.tokens, golds, strict=True)])

    @property
    def rows(self) -> list[dict[str, list[float]]]:
        """Each prompt as lists, for a file."""
        columns = zip(*(getattr(self, name).tolist() for name in PARTS), strict=True)
        return [dict(zip(PARTS, row, strict=True)) for row in columns]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, list[float]]]) -> Self:
        """A reading of such rows."""
        return cls(
            np.array([row["tokens"] for row in rows], np.int64),
            *(np.array([row[name] for row in rows], np.float64) for name in PARTS[1:]),
        )

    @property
    def own(self) -> list[frozenset[int]]:
        """The model's own answer to each prompt: the likeliest token after the last layer."""
        return [frozenset({int(token)}) for token in self.tokens[:, -1]]


def last_states(subject: Subject, rows: Sequence[Sequence[int]]) -> Array:
    """[n, L + 1, d_model] float32: states of the last token of each row of ids."""
    return subject.means(rows, [[(len(ids) - 1, len(ids))] for ids in rows])[:, 0]


@torch.no_grad()
def read(states: Array, unembedding: Unembedding, translate: Translate = as_it_is) -> Reading:
    """What the lens shows of states [n, L + 1, d_model], of which row 0, the embeddings, is left out."""
    parts = [
        _part(
            torch.from_numpy(states[start : start + ROWS, 1:]).to(unembedding.device), unembedding, translate
        )
        for start in range(0, len(states), ROWS)
    ]
    tokens, probabilities, divergences = (
        torch.cat(list(part)).cpu().numpy() for part in zip(*parts, strict=True)
    )
    return Reading(tokens, probabilities.astype(np.float64), divergences.astype(np.float64))


def _part(states: Tensor, unembedding: Unembedding, translate: Translate) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, probabilities and divergences, each [rows, L], of states [rows, L, d_model]."""
    layers = states.shape[1]
    final = unembedding.logits(states[:, -1]).log_softmax(-1)
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for layer in range(1, layers + 1):
        here = states[:, layer - 1]
        # a lens that translates the last layer would no longer show the model's output
        logs = final if layer == layers else unembedding.logits(translate(layer, here)).log_softmax(-1)
        top = logs.max(-1)
        columns.append((top.indices, top.values.exp(), (final.exp() * (final - logs)).sum(-1)))
    tokens, probabilities, divergences = (torch.stack(list(part), 1) for part in zip(*columns, strict=True))
    return tokens, probabilities, divergences
