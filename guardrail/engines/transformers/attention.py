"""What heads attend to, from queries and keys, because fused attention keeps no weights.

Every attention of transformers hands its queries, keys and values, after rotary embeddings and normalisation,
to a function that `AttentionInterface.get_interface` gives it. During one pass that function is wrapped: it
computes what it always does, and the weights of the last query are computed beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from guardrail.engines.transformers.blocks import submodule
from guardrail.errors import ModelError

Parts: TypeAlias = "tuple[Tensor, Tensor]"
_WATCHING = threading.Lock()
"""One pass at a time: what is wrapped belongs to the whole process."""


@dataclass(frozen=True, slots=True)
class Attended:
    """What the last token of each row attends to, [rows, layers, heads, tokens] float32, 0 at padding.

    weights: sum up to 1 over tokens (less if the model has an attention sink of its own). values: the norm of
    each token's value vector; query heads that share keys and values share these.
    """

    weights: Tensor
    values: Tensor

    @property
    def weighted(self) -> Tensor:
        """Weights times norms, by their sum over tokens: how much of what a head moves comes from where."""
        product = self.weights * self.values
        return product / product.sum(-1, keepdim=True).clamp(min=torch.finfo(product.dtype).tiny)


def last_attention(blocks: Sequence[nn.Module], forward: Callable[[], object]) -> Attended:
    """What the last column attends to in this pass over these blocks.

    Raises ModelError for a model whose attentions do not go through transformers' interface.
    """
    found: dict[int, Parts] = {}
    with _watched(_layers(blocks), found):
        forward()
    if missing := [i + 1 for i in range(len(blocks)) if i not in found]:
        raise ModelError(
            f"{type(blocks[0]).__name__}: layer {missing[0]} does not compute attention through "
            "transformers' AttentionInterface, so what its heads attend to cannot be read"
        )
    weights, values = zip(*(found[i] for i in range(len(blocks))), strict=True)
    return Attended(torch.stack(weights, 1), torch.stack(values, 1))


def _layers(blocks: Sequence[nn.Module]) -> dict[nn.Module, int]:
    """The modules that may compute a block's attention: it, and what is inside it."""
    return {part: i for i, block in enumerate(blocks) for part in submodule(block, "attn").modules()}


@contextmanager
def _watched(layers: dict[nn.Module, int], found: dict[int, Parts]) -> Generator[None]:
    with _WATCHING:
        own = AttentionInterface.get_interface

        def wrapped(
            interface: AttentionInterface, name: str, default: Callable[..., Any]
        ) -> Callable[..., Any]:
            return partial(_beside, layers, found, own(interface, name, default))

        AttentionInterface.get_interface = wrapped  # type: ignore[method-assign]
        try:
            yield
        finally:
            AttentionInterface.get_interface = own  # type: ignore[method-assign]


def _beside(
    layers: dict[nn.Module, int],
    found: dict[int, Parts],
    attend: Callable[..., Any],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *rest: Any,
    **arguments: Any,
) -> Any:
    """The attention of a module as it is. Passes of other models, on other threads, are let through."""
    if module in layers:
        weights = last_weights(module, query, key, attention_mask, arguments)
        norms = _spread(value.float().norm(dim=-1), query.shape[1]).expand_as(weights)
        found[layers[module]] = weights, norms
    return attend(module, query, key, value, attention_mask, *rest, **arguments)


def last_weights(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, arguments: dict[str, Any]
) -> Tensor:
    """[rows, heads, keys] float32: softmax(softcap(q k scaling) + mask) of the last query.

    query: [rows, heads, tokens, size]; key: [rows, key heads, keys, size]. `arguments` are those of
    transformers' attention functions.
    """
    keys = _spread(key, query.shape[1])
    scaling = arguments.get("scaling") or getattr(module, "scaling", None) or query.shape[-1] ** -0.5
    scores = (query[:, :, -1:] @ keys.transpose(2, 3))[:, :, 0].float() * scaling
    if cap := arguments.get("softcap"):
        scores = cap * torch.tanh(scores / cap)
    if (bias := arguments.get("position_bias")) is not None:
        scores = scores + bias[..., -1, :]
    return _softmax(_masked(scores, mask, arguments.get("sliding_window")), arguments.get("s_aux"))


def _spread(values: Tensor, heads: int) -> Tensor:
    """[rows, heads, ...] of [rows, key heads, ...]: neighbouring query heads share a key head."""
    return values.repeat_interleave(heads // values.shape[1], dim=1)


def _masked(scores: Tensor, mask: Any, window: int | None) -> Tensor:
    """A mask of four dimensions knows windows; without one, or with one of tokens alone, they are applied."""
    count = scores.shape[-1]
    if mask is not None and not isinstance(mask, Tensor):
        raise ModelError(
            f"attention masks of the type {type(mask).__name__} cannot be read; use sdpa or eager"
        )
    if mask is not None and mask.dim() == 4:
        row = mask[:, :, -1, :count]
        return scores.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else scores + row.float()
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, -count:].bool(), -torch.inf)
    if window is not None and window < count:
        scores = scores.clone()
        scores[..., : count - window] = -torch.inf
    return scores


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Sinks, one score per head, take their share and are left out."""
    if sinks is None:
        return scores.softmax(-1)
    column = sinks.float().reshape(1, -1, 1).expand(len(scores), -1, 1)
    return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
