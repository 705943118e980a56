"""Taking rows out of a batch in the middle of `generate`: of its inputs, and of the prefill's outputs.

The caller's own parts (logits processors, stopping criteria, streamers) may count rows. They still see the
whole batch: a row that was stopped looks to them like one that ended at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.caches import CACHES, keep_rows
from guardrail.engines.transformers.unsupported import ROWS, prompt_ids


@dataclass(frozen=True)
class Kept:
    """The prompts that go on, of `total`. Every prompt has `expand` rows in the batch (beams, samples)."""

    prompts: Sequence[int]
    total: int
    expand: int = 1
    rows: list[int] = field(init=False)
    """The rows of the whole batch that go on."""

    def __post_init__(self) -> None:
        rows = [prompt * self.expand + i for prompt in self.prompts for i in range(self.expand)]
        object.__setattr__(self, "rows", rows)

    @property
    def size(self) -> int:
        """The rows of the whole batch."""
        return self.total * self.expand

    def of(self, whole: Tensor) -> Tensor:
        """[all rows, ...] -> [rows that go on, ...]"""
        return whole[torch.tensor(self.rows, device=whole.device)]

    def whole(self, part: Tensor, filler: Tensor | float) -> Tensor:
        """[rows that go on, ...] -> [all rows, ...], with `filler` in the others."""
        found = part.new_empty((self.size, *part.shape[1:]))
        found[:] = filler
        found[torch.tensor(self.rows, device=part.device)] = part
        return found


class WholeBatch:
    """Shows a logits processor or a stopping criterion of the caller's all rows of the batch."""

    def __init__(self, called: Any, kept: Kept, prompts: Tensor, pad: int) -> None:
        self._called, self._kept, self._prompts, self._pad = called, kept, prompts, pad

    def _rows(self, ids: Tensor) -> Kept:
        # beam search shows criteria more candidates for each prompt than it has beams
        return replace(self._kept, expand=len(ids) // len(self._kept.prompts))

    def _ids(self, ids: Tensor) -> Tensor:
        rows = self._rows(ids)
        ended = ids.new_full((rows.size, ids.shape[1]), self._pad)
        ended[:, : self._prompts.shape[1]] = self._prompts.repeat_interleave(rows.expand, 0)
        return rows.whole(ids, ended)


class WholeBatchProcessor(WholeBatch):
    """A logits processor: [rows, tokens] and [rows, vocabulary] to [rows, vocabulary]."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores of the rows that go on."""
        rows = self._rows(input_ids)
        return rows.of(self._called(self._ids(input_ids), rows.whole(scores, scores[0])))


class WholeBatchCriterion(WholeBatch):
    """A stopping criterion: [rows, tokens] to [rows], whether a row ends."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """What is said of the rows that go on."""
        if isinstance(scores, tuple):
            scores = tuple(self._rows(step).whole(step, step[0]) for step in scores)
        return self._rows(input_ids).of(self._called(self._ids(input_ids), scores, **kwargs))


class LaterStreamer:
    """The caller's streamer in the second call of `generate`.

    It has seen the prompt already, so the first `put` is dropped. If rows have left (`kept`), it gets padding
    for them, and not the end: what they are answered comes after the others' replies.
    """

    def __init__(self, streamer: Any, kept: Kept, pad: int) -> None:
        self._streamer, self._kept, self._pad = streamer, kept, pad
        self._seen = False

    def put(self, value: Tensor) -> None:
        """Pass tokens [rows] on, but not the prompt."""
        if self._seen:
            self._streamer.put(self._kept.whole(value, self._pad) if self._left else value)
        self._seen = True

    def end(self) -> None:
        """Pass the end on."""
        if not self._left:
            self._streamer.end()

    @property
    def _left(self) -> bool:
        return len(self._kept.prompts) < self._kept.total


def select_inputs(kwargs: Mapping[str, Any], kept: Kept, pad: int) -> dict[str, Any]:
    """The arguments of `generate` for the rows that go on; the cache comes with the outputs instead."""
    inputs = {name: value for name, value in kwargs.items() if name not in CACHES}
    if inputs.get("streamer") is not None:
        inputs["streamer"] = LaterStreamer(inputs["streamer"], kept, pad)
    if len(kept.prompts) == kept.total:
        return inputs
    prompts = Kept(kept.prompts, kept.total)
    inputs |= {name: prompts.of(inputs[name]) for name in ROWS if _has_rows(inputs.get(name), kept.total)}
    ids = prompt_ids(kwargs)
    for name, seen_by in (
        ("logits_processor", WholeBatchProcessor),
        ("stopping_criteria", WholeBatchCriterion),
    ):
        if given := inputs.get(name):
            inputs[name] = type(given)(_seen(part, seen_by, kept, ids, pad) for part in given)
    if (allowed := inputs.get("prefix_allowed_tokens_fn")) is not None:
        inputs["prefix_allowed_tokens_fn"] = lambda row, ids: allowed(kept.prompts[row], ids)
    return inputs


def _has_rows(value: Any, total: int) -> bool:
    return value is not None and len(value) == total


def _seen(part: Any, seen_by: type[WholeBatch], kept: Kept, ids: Tensor, pad: int) -> Any:
    # a part of one of the library's own types replaces the one that `generate` would make, which it knows by
    # the type. Of these, only the ones named here know rows
    kind = type(part)
    if kind.__module__.startswith("transformers.") and not kind.__name__.startswith(("Prefix", "Encoder")):
        return part
    return seen_by(part, kept, ids, pad)


def select_outputs(outputs: Any, kept: Kept) -> Any:
    """The prefill's outputs for the rows that go on; a cache loses the other rows in place."""
    for name in list(outputs.keys()):
        if name in CACHES:
            keep_rows(outputs[name], kept.rows)
        else:
            outputs[name] = _rows(outputs[name], kept)
    return outputs


def _rows(value: Any, kept: Kept) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == kept.size:
        return kept.of(value)
    if isinstance(value, tuple):
        return tuple(_rows(item, kept) for item in value)
    return value
