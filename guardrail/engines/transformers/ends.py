"""Where the prompts of a batch end, with padding on either side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guardrail.errors import PromptError

EMPTY = "a prompt is empty: its attention mask has no token"


class Ends:
    """The column of each row's last token, for a forward pass over the last `columns` of `mask`.

    `last` [rows] is None if every row is known to end in the last column. Looking at a mask on a GPU means
    waiting for it. Unless `wait` is set, `unknown` goes to the host with the scores instead, and `learn`
    takes it from there. Raises PromptError for a row without tokens.
    """

    def __init__(self, mask: Tensor | None, columns: int, *, wait: bool = True) -> None:
        self.last: Tensor | None = None
        self._mask, self._columns = mask, columns
        self._known = mask is None or wait or on_host(mask)
        if mask is not None and not (self._known and _ends_last(mask)):
            self.last = columns - 1 - mask[:, -columns:].to(torch.int64).flip(1).argmax(1)

    def unknown(self, every: int) -> Tensor | None:
        """[prompts, 2] for every so many rows: has tokens, ends early. None if all is known."""
        if self._known or self.last is None or self._mask is None:
            return None
        padded = self.last[::every] < self._columns - 1
        return torch.stack([self._mask[::every].any(1), padded], 1).float()

    def learn(self, rows: Sequence[Sequence[float]]) -> None:
        """Take in `unknown`, the last two columns of rows. Raises PromptError for a row without tokens."""
        if self._known or self.last is None:
            return
        if not all(row[-2] for row in rows):
            raise PromptError(EMPTY)
        self._known = True
        if not any(row[-1] for row in rows):
            self.last = None

    def at(self, hidden: Tensor) -> Tensor:
        """States [rows, d_model] of the last prompt tokens of hidden [rows, positions, d_model]."""
        return at_columns(hidden, None if hidden.shape[1] == 1 else self.last)

    def onwards(self, hidden: Tensor) -> Tensor | None:
        """[rows, positions] bool: from each row's last prompt token on; None for the last column alone."""
        if self.last is None or hidden.shape[1] == 1:
            return None
        columns = torch.arange(hidden.shape[1], device=hidden.device)
        return columns[None] >= self.last.to(hidden.device)[:, None]


def at_columns(hidden: Tensor, columns: Tensor | None) -> Tensor:
    """States [rows, d_model] at one column of each row; the last column if none is given."""
    if columns is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), columns.to(hidden.device)]


def _ends_last(mask: Tensor) -> bool:
    """Whether every row ends in the last column. Raises PromptError for a row without tokens."""
    if bool(mask.all()):
        return True
    if not bool(mask.any(1).all()):
        raise PromptError(EMPTY)
    return bool(mask[:, -1].all())


def on_host(tensor: Tensor) -> bool:
    """Whether a tensor can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"
