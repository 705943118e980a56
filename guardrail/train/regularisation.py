"""The projection-change regulariser (Chen et al. 2025, arXiv 2507.21509, J.5): a negative control.

L = L_ce + lambda mean over layers, traits and reply tokens of (<h - h_ref, v^>)^2, with h_ref from the
frozen base. The paper reports that it holds the projections and not the trait, which moves to other
directions: judge behaviour, not projections. The paper gives neither formula nor lambda; this one is ours.

No loss is collected: blocks that checkpointing runs twice would give it twice, or without a graph. The
gradient of the penalty is known, so an identity at each layer adds it in the backward pass, in which each
layer's output is met once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.executor import hidden_of
from guardrail.engines.transformers.modes import evaluating
from guardrail.errors import ConfigError, SteeringError
from guardrail.train.intervention import Applied, ModelIntervention
from guardrail.train.passes import bare, blocks_of, decoder_in
from guardrail.train.steering import Vectors, check_sizes, digest, several, usable_layers
from guardrail.vectors.values import unit

IGNORED = -100
"""The label of tokens that are not trained on."""


class ProjectionRegulariser(ModelIntervention):
    """Penalises, with `weight` (lambda), how far the projections of reply tokens move from those of the base.

    The base is the model with its adapter switched off; without an adapter it is `reference`, or a copy that
    is made when training begins. Each pass needs `labels`, and its backward pass comes before the next one.
    Under a trainer the gradient is divided by the accumulation steps; fp16, which scales losses, is refused.
    Raises VectorError for layers that the vectors do not have.
    """

    kind = "projection regulariser"

    def __init__(
        self,
        model: Any,
        vectors: Vectors,
        weight: float,
        layers: Sequence[int] | None = None,
        reference: Any = None,
    ) -> None:
        self.vectors, self.weight = several(vectors), weight
        super().__init__(model, usable_layers(self.vectors, layers))
        self._directions = {layer: self._units(layer) for layer in self.layers}
        self._given, self._reference, self._share = reference, reference, 1.0
        self._handles: list[Any] = []
        self._mask: Tensor | None = None
        self._base: dict[int, Tensor] = {}
        self._first: dict[int, Tensor] = {}
        self._active, self._penalty = False, torch.zeros(())

    def _units(self, layer: int) -> Tensor:
        return torch.stack([torch.from_numpy(unit(vector.steering[layer])) for vector in self.vectors])

    def begin(self, model: Any) -> None:
        """Takes the base, and begins to look at labels. Raises ModelError if the vectors do not fit."""
        check_sizes(self.vectors, model)
        if self._reference is None and not _adapted(bare(model)):
            self._reference = copy.deepcopy(bare(model)).requires_grad_(False).eval()
        self._watch(bare(model))
        decoder = decoder_in(model)
        self._handles.append(decoder.register_forward_pre_hook(self._read_base, with_kwargs=True))

    def end(self) -> None:
        """Takes the hooks off, and lets go of the copy."""
        while self._handles:
            self._handles.pop().remove()
        self._reference = self._given

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer. Raises ConfigError for fp16, SteeringError if the base is gone."""
        if args.fp16:
            raise ConfigError(
                f"{self.kind}: the scaling of losses in fp16 would hide lambda; use bf16 or fp32"
            )
        begun = self._passes is not None
        super().on_train_begin(args, state, control, **kwargs)
        if state.global_step and not begun and self._reference is not self._given:
            raise SteeringError(f"{self.kind}: this run resumes, and the base is gone; pass `reference`")
        self._share = 1 / args.gradient_accumulation_steps
        self._watch(bare(kwargs["model"]))

    def _watch(self, model: Any) -> None:
        """Look at the labels that the model, or what a trainer has wrapped around it, is called with."""
        self._top = model
        self._handles.append(model.register_forward_pre_hook(self._see_labels, with_kwargs=True))

    def _see_labels(self, model: Any, arguments: Any, named: Mapping[str, Any]) -> None:
        labels = named.get("labels")
        if model.training and torch.is_grad_enabled():
            self._mask = None if labels is None else labels != IGNORED

    def _read_base(self, decoder: nn.Module, arguments: Any, named: Mapping[str, Any]) -> None:
        """Runs the base on what the decoder is about to get, and keeps its projections."""
        if not decoder.training:
            return
        self._active = torch.is_grad_enabled()
        if not self._active:
            return
        if self._mask is None:
            raise SteeringError(
                f"{self.kind}: a training pass without `labels` does not say which tokens count"
            )
        base = decoder if self._reference is None else decoder_in(self._reference)
        blocks = blocks_of(self._top if self._reference is None else self._reference)
        with torch.no_grad(), evaluating(base.modules()), self._without_adapter():
            handles = [
                blocks[i - 1].register_forward_hook(self._keeping(i), prepend=True) for i in self.layers
            ]
            try:
                base(*arguments, **{**named, "use_cache": False})
            finally:
                for handle in handles:
                    handle.remove()

    def _without_adapter(self) -> AbstractContextManager[Any]:
        return self._top.disable_adapter() if self._reference is None else nullcontext()

    def _keeping(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(block: nn.Module, arguments: Any, output: Any) -> None:
            self._base[layer] = self._projected(layer, hidden_of(output))

        return hook

    def _projected(self, layer: int, hidden: Tensor) -> Tensor:
        """[rows, tokens, traits] float32, without a graph."""
        directions = self._directions[layer] = self._directions[layer].to(hidden.device)
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ directions.T

    def changed(self, layer: int, hidden: Tensor) -> Tensor:
        """hidden itself; its gradient becomes that of the loss plus that of the penalty."""
        again = self._passes is not None and self._passes.recomputing
        if not (again or self._active) or self._mask is None:
            return hidden
        moved = self._projected(layer, hidden) - self._base[layer]
        if again:
            self._check_same(moved, self._first[layer])
        self._first[layer] = moved
        counted = self._mask[..., None].to(hidden.device)
        mean = 1 / (counted.sum().clamp(min=1) * len(self.layers) * len(self.vectors))
        if not again:
            self._penalty = self._penalty + (mean * (counted * moved**2).sum()).cpu()
        slope = 2 * self.weight * self._share * mean * counted * moved
        return _Penalised.apply(hidden, slope, self._directions[layer])

    def _check_same(self, moved: Tensor, first: Tensor) -> None:
        near = moved.shape == first.shape and torch.allclose(
            moved, first, 1e-2, 1e-2 * float(first.abs().max())
        )
        if not near:
            raise SteeringError(
                f"{self.kind}: another pass came between a training pass and its backward pass"
            )

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        found = super().applied
        return replace(
            found,
            traits=tuple(vector.trait for vector in self.vectors),
            coefficients=(self.weight,),
            digest=digest(self._directions.values()),
            penalty=float(self._penalty) / found.passes if found.passes else None,
        )


class _Penalised(torch.autograd.Function):
    """The identity; backward adds slope [rows, tokens, traits] @ directions [traits, d_model]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, slope: Tensor, directions: Tensor) -> Tensor:
        ctx.save_for_backward(slope, directions)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore
        slope, directions = ctx.saved_tensors
        return gradient + (slope @ directions).to(gradient.dtype), None, None


def _adapted(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "disable_adapter")
