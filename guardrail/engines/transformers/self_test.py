"""Tests a model when it is loaded: is what the guard reads what the model computes for the prompt?

Architectures differ in what a block returns, in how they number positions and in what padding does, and a
wrong reading looks like any other. Two short prompts, one the start of the other, tell: each block's output
has to be the model's own hidden state, and the shorter prompt has to read the same alone, padded beside the
longer one, and in `generate`. That takes three short forward passes.
"""
# who listens to a module is in no public attribute
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.executor import hidden_of
from guardrail.engines.transformers.front import unasked
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.stance import eagerly
from guardrail.errors import ModelError

CAPTURING = "_output_capturing_hooks_installed"
"""How transformers marks a model that has its hooks for hidden states and attentions."""
LONG, SHORT = 8, 5
"""Tokens of the two prompts."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest relative difference of two readings that are the same."""
COARSE = 5e-2
"""In half precision, and of quantised weights."""


class SelfTest:
    """`model` is what the user runs, `inner` the transformers model in it, `blocks` what the guard reads."""

    def __init__(self, model: Any, inner: Any, blocks: nn.ModuleList, ids: Sequence[int], pad: int) -> None:
        self._model, self._inner, self._blocks = model, inner, blocks
        padded = [*[pad] * (LONG - SHORT), *ids[:SHORT]]
        self._ids = torch.tensor([list(ids), padded], device=inner.device)
        self._mask = torch.ones_like(self._ids)
        self._mask[1, : LONG - SHORT] = 0
        self.every_token = True
        """Whether earlier tokens read the same as well, which means over tokens need."""

    def run(self) -> None:
        """Raises ModelError, with the reason, for a model that would be read wrongly."""
        if _has_no_weights(self._inner):
            return
        with self._quietly():
            alone = self._read(self._alone)
            self._compare_with_hidden_states(alone)
            expected = [[states[0], states[0, :SHORT]] for states in alone]
            for what, run in (("padded beside another", self._padded), ("in `generate`", self._generate)):
                found = [[states[0], states[1, -SHORT:]] for states in self._read(run)]
                self._compare(found, expected, what)

    def _compare(self, found: list[list[Tensor]], expected: list[list[Tensor]], what: str) -> None:
        self.every_token &= _same(_means(found), _means(expected))
        if not _same(_last(found), _last(expected)):
            self._refuse(f"a prompt reads differently alone and {what}, so scores would depend on that")

    @contextmanager
    def _quietly(self) -> Generator[None]:
        """Without dropout, gradients or compiled graphs, and with the random state as it was afterwards."""
        device = self._inner.device
        devices = [device] if device.type == "cuda" else []
        with (
            _untouched(self._inner),
            evaluating(self._inner.modules()),
            torch.no_grad(),
            torch.random.fork_rng(devices),
            eagerly(),
        ):
            yield

    def _read(self, run: Callable[[], Any]) -> list[Tensor]:
        """What each block returns, [rows, tokens, d_model], the first time that it runs."""
        found: list[list[Any]] = [[] for _ in self._blocks]
        with ExitStack() as hooks:
            for block, kept in zip(self._blocks, found, strict=True):
                # in front of the user's own hooks, where guards read
                handle = block.register_forward_hook(partial(_keep, kept), prepend=True)
                hooks.callback(handle.remove)
            try:
                run()
            except ModelError:
                raise
            except Exception as error:
                reason = (str(error).strip() or "no reason given").splitlines()[0]
                self._refuse(f"a short prompt fails: {type(error).__name__}: {reason}")
        if any(len(kept) != 1 or not isinstance(kept[0], Tensor) or kept[0].dim() != 3 for kept in found):
            self._refuse("its blocks do not run once each and return a residual stream")
        return [kept[0] for kept in found]

    def _alone(self) -> None:
        output = self._model(input_ids=self._ids[:1], output_hidden_states=True, use_cache=False)
        self._stated = getattr(output, "hidden_states", None)

    def _compare_with_hidden_states(self, read: Sequence[Tensor]) -> None:
        # the last one is not a layer's: it comes after the final norm
        stated = self._stated[1:-1] if self._stated is not None else None
        if stated is None or len(stated) != len(read) - 1:
            self._refuse("it gives no hidden state for each of its blocks")
        for layer, (one, other, block) in enumerate(
            zip(read[:-1], stated, self._blocks[:-1], strict=True), 1
        ):
            # a user's hook may change what the next block gets
            if not block._forward_hooks and (one.shape != other.shape or not _close(one, other)):
                self._refuse(f"the output of block {layer} is not the model's hidden state {layer}")

    def _padded(self) -> None:
        known = inspect.signature(self._inner.forward).parameters
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        extra = {"position_ids": positions} if "position_ids" in known else {}
        self._inner(input_ids=self._ids, attention_mask=self._mask, use_cache=False, **extra)

    def _generate(self) -> None:
        from transformers import GenerationConfig

        config = GenerationConfig(max_new_tokens=1, do_sample=False, num_beams=1, pad_token_id=0)
        # the class's, because a guard may stand in front of the model's own
        with unasked():
            type(self._inner).generate(
                self._inner, input_ids=self._ids, attention_mask=self._mask, generation_config=config
            )

    def _refuse(self, reason: str) -> NoReturn:
        raise ModelError(f"{type(self._inner).__name__} cannot be guarded: {reason}")


@contextmanager
def _untouched(model: nn.Module) -> Generator[None]:
    """Takes off what transformers puts on modules the first time that hidden states are asked for."""
    before = [
        (module, set(module._forward_hooks), CAPTURING in module.__dict__) for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, hooks, capturing in before:
            for key in set(module._forward_hooks) - hooks:
                del module._forward_hooks[key]
            if not capturing:
                module.__dict__.pop(CAPTURING, None)


def _has_no_weights(model: nn.Module) -> bool:
    """Whether the model is a skeleton, which cannot run; accelerate fills in one that it has dispatched."""
    dispatched = any(hasattr(module, "_hf_hook") for module in model.modules())
    return not dispatched and any(parameter.device.type == "meta" for parameter in model.parameters())


def _keep(kept: list[Any], module: nn.Module, arguments: Any, output: Any) -> None:
    found: Any = hidden_of(output)
    kept.append(found.detach().clone() if isinstance(found, Tensor) else found)


def _same(found: Sequence[Sequence[Tensor]], expected: Sequence[Sequence[Tensor]]) -> bool:
    """Whether readings [layers][prompts][d_model] agree in most layers: rounding may add up in some."""
    pairs = zip(found, expected, strict=True)
    agreeing = [all(map(_close, layer, other)) for layer, other in pairs]
    return sum(agreeing) * 2 > len(agreeing)


def _last(states: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """[layers][prompts][d_model] of states [layers][prompts][tokens, d_model]."""
    return [[prompt[-1] for prompt in layer] for layer in states]


def _means(states: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    return [[prompt.mean(0, dtype=torch.float32) for prompt in layer] for layer in states]


def _close(one: Tensor, other: Tensor) -> bool:
    difference = torch.linalg.vector_norm(one.float() - other.to(one.device).float())
    return bool(difference <= TOLERANCE.get(one.dtype, COARSE) * torch.linalg.vector_norm(other.float()))
