"""Attention in a pass that holds many requests: on a CPU, each with its own keys alone.

transformers computes one product of all tokens with everything that is cached, and masks what belongs to
other requests. That grows with the square of the batch, and its rounding depends on the other requests.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from guardrail.engines.transformers.blocks import text_config

NAMES = ("guardrail_by_request", "guardrail_by_request_masked")
"""What the attention is called while a pass lasts, without and with windows."""


def by_request(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    masked: bool,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[1, tokens, heads, width] for query [1, heads, tokens, width], keys and values of all requests.

    `masked`: whether the tokens of a whole prompt may not see all that came before, because of a window.
    """
    found: list[Tensor] = []
    pairs = zip(pairwise(cu_seq_lens_q.tolist()), pairwise(cu_seq_lens_k.tolist()), strict=True)
    for (first, last), (begin, end) in pairs:
        if first == last:
            continue
        # as `generate` asks for it: a whole prompt is causal, and the newest token sees all
        single = last - first == 1
        causal = not single and last - first == end - begin and not masked
        mask = None if causal or single else attention_mask[..., first:last, begin:end]
        own = query[:, :, first:last], key[:, :, begin:end], value[:, :, begin:end]
        found.append(sdpa_attention_forward(module, *own, mask, is_causal=causal, **kwargs)[0])
    return torch.cat(found, 1), None


for masked in (False, True):
    ALL_ATTENTION_FUNCTIONS.register(NAMES[masked], partial(by_request, masked=masked))


@contextmanager
def apart(model: Any) -> Generator[None]:
    """Each request's attention by itself, in the passes inside."""
    config = text_config(model)
    before = config._attn_implementation
    config._attn_implementation = NAMES[getattr(config, "sliding_window", None) is not None]
    try:
        yield
    finally:
        config._attn_implementation = before
