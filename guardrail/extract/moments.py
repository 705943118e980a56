"""Running sums of states, of fixed size, that give means, stability and norms.

Sums are kept per question and side in float64: [questions, sides, positions, L + 1, d_model]. Questions are
the unit of resampling, because replies to one question are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from guardrail.errors import ExtractionError
from guardrail.files.whole import write_whole
from guardrail.types import Array
from guardrail.vectors.file_format import canonical

POSITIONS = ("response_mean", "last_prompt_token", "prompt_mean")
POSITIVE, NEGATIVE = 0, 1
Sums = NDArray[np.float64]


@dataclass(slots=True)
class Moments:
    """sums: [questions, 2, positions, L + 1, d_model]. counts: [questions] pairs. batches: added so far.

    norms: [2, L + 1], sums of the Euclidean norms of the response means. balanced: every question counts the
    same, however many pairs it has; else every pair does. For roles, questions are roles.
    """

    sums: Sums = field(repr=False)
    counts: NDArray[np.int64]
    norms: Sums
    batches: int = 0
    balanced: bool = False

    @classmethod
    def empty(cls, questions: int, layers: int, d_model: int) -> Self:
        """Sums of nothing."""
        shape = (questions, 2, len(POSITIONS), layers + 1, d_model)
        return cls(np.zeros(shape), np.zeros(questions, np.int64), np.zeros((2, layers + 1)))

    def add(self, question: int, positive: Array, negative: Array) -> None:
        """Add one pair; [positions, L + 1, d_model] each."""
        for side, states in ((POSITIVE, positive), (NEGATIVE, negative)):
            self.sums[question, side] += states
            self.norms[side] += np.linalg.norm(states[0].astype(np.float64), axis=-1)
        self.counts[question] += 1

    def difference(self, position: str) -> Array:
        """[L + 1, d_model] float32: mean over kept pairs, positive minus negative."""
        return self._difference(position, np.ones(len(self.counts)))

    def _difference(self, position: str, weights: Sums) -> Array:
        """The difference with each question counted `weights` times."""
        place = POSITIONS.index(position)
        gaps = self.sums[:, POSITIVE, place] - self.sums[:, NEGATIVE, place]
        if self.balanced:
            weights = np.divide(weights, self.counts, out=np.zeros(len(weights)), where=self.counts > 0)
        return (np.tensordot(weights, gaps, 1) / (weights @ self.counts)).astype(np.float32)

    def resampled(self, position: str, weights: Sums) -> Array:
        """`difference` with each question counted `weights` times. Raises ValueError if no pair remains."""
        if not weights @ self.counts:
            raise ValueError("no pair has any weight")
        return self._difference(position, weights)

    def question_means(self, position: str) -> tuple[Array, Array]:
        """([n, L + 1, d_model] positive, the same negative) for each question with a kept pair."""
        place, asked = POSITIONS.index(position), self.counts > 0
        means = self.sums[asked, :, place] / self.counts[asked, None, None, None]
        return means[:, POSITIVE].astype(np.float32), means[:, NEGATIVE].astype(np.float32)

    def mean_norms(self) -> Array:
        """[L + 1]: the mean norm of a reply's mean state, over both sides."""
        return (self.norms.sum(axis=0) / (2 * self.counts.sum())).astype(np.float32)

    def save(self, path: Path, recipe: str) -> None:
        """Write atomically: the file is always either the old or the new one."""
        from safetensors.numpy import save

        data = save(
            {"sums": self.sums, "counts": self.counts, "norms": self.norms},
            metadata={"recipe": recipe, "batches": str(self.batches)},
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, canonical(data))

    @classmethod
    def load(cls, path: Path, recipe: str) -> Self | None:
        """Read what `save` wrote; None without a file. Raises ExtractionError for another recipe."""
        from safetensors import safe_open

        if not path.is_file():
            return None
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("recipe") != recipe:
                raise ExtractionError(f"{path} was made from other rollouts or scores; choose another folder")
            arrays = {name: file.get_tensor(name) for name in ("sums", "counts", "norms")}
        return cls(**arrays, batches=int(metadata["batches"]))
