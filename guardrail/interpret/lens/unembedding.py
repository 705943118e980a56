"""From a state of the residual stream to logits: the final norm, then the output embedding.

The logit lens of nostalgebraist (2020), as in Ozaki et al. (NLP 2025): LogitLens(h) = Norm_f(h) W_U.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.activations import Site
from guardrail.engines.transformers.blocks import decoder_of, text_config
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.modes import evaluating
from guardrail.errors import ModelError

NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "final_norm")
TOLERANCE = 1e-4
"""Of float32 logits, as a share of the largest. Other types: what two of their roundings make."""


class Unembedding:
    """Logits of states, exactly as the model computes them from the output of its last block.

    Raises ModelError for a model whose own logits come out otherwise: its end is not known here.
    """

    def __init__(self, local: LocalModel) -> None:
        self._norm = _final_norm(local)
        self._head = local.inner.get_output_embeddings()
        if self._head is None:
            raise ModelError(
                f"{type(local.inner).__name__} has no output embedding; no lens looks through it"
            )
        self._config = text_config(local.inner)
        self._check(local)

    @property
    def device(self) -> torch.device:
        """Where states have to be."""
        return self._head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type that states are rounded to."""
        return next(self._norm.parameters()).dtype

    def logits(self, states: Tensor) -> Tensor:
        """[n, vocabulary] float32 of states [n, d_model] after any block. Differentiable."""
        found = self._head(self._norm(states.to(self.device, self.dtype)).to(self._head.weight.dtype))
        return _scaled(found.float(), self._config)

    @torch.no_grad()
    def _check(self, local: LocalModel) -> None:
        """Raises ModelError unless the lens after the last block gives the model's logits."""
        ids, mask = local.padded([local.trial], left=True)
        last = Site(len(local.blocks))
        with evaluating(local.inner.modules()):
            state = local.activations.read(ids, mask, [last])[last]
            found = self.logits(state)
        own = local.activations.patch(ids, mask, [])[:, -1].float().to(found.device)
        share = TOLERANCE if own.dtype == self.dtype == torch.float32 else 4 * torch.finfo(self.dtype).eps
        limit = max(TOLERANCE, share) * max(1.0, float(own.abs().max()))
        if float((found - own).abs().max()) > limit:
            raise ModelError(
                f"{type(local.inner).__name__}: final norm and output embedding do not give the model's own "
                "logits, so a lens would show something else than the model"
            )


def _final_norm(local: LocalModel) -> nn.Module:
    decoder = decoder_of(local.inner, local.blocks)
    for name in NORMS:
        if isinstance(found := getattr(decoder, name, None), nn.Module):
            return found
    raise ModelError(f"{type(decoder).__name__}: no final norm was found (looked for {', '.join(NORMS)})")


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """What some families do to logits: Cohere multiplies, Granite divides, Gemma caps."""
    logits = logits * (getattr(config, "logit_scale", None) or 1.0)
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
