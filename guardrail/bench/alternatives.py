"""Simple alternatives to the guard: read the same layers, score them, decide once.

Each alternative is attached to a model, generates, and is detached completely: PyTorch hooks that stay on for
the whole reply, `output_hidden_states=True`, and an nnsight trace around the whole generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Protocol

import numpy as np

from guardrail.engines.transformers.blocks import decoder_blocks
from guardrail.policy.plan import Plan
from guardrail.types import Array


class Alternative(Protocol):
    """Generates like `model.generate`, and reads the plan's layers meanwhile."""

    def attach(self, model: Any) -> None: ...
    def generate(self, arguments: Mapping[str, Any]) -> Any: ...
    def detach(self) -> None: ...


class _Probes:
    """The plan's probes per layer, as tensors on the model's device. All read the last position."""

    def __init__(self, plan: Plan, device: Any) -> None:

        self.layers = plan.layers
        terms = {layer: plan.terms(layer) for layer in plan.layers}
        self._weights = {i: _joined([t.weights for t in parts], device) for i, parts in terms.items()}
        self._offsets = {i: _joined([t.offsets for t in parts], device) for i, parts in terms.items()}

    def scores(self, layer: int, hidden: Any) -> Any:
        """[rows, probes] of the last position of hidden [rows, positions, d_model]."""
        return hidden[:, -1].float() @ self._weights[layer].T + self._offsets[layer]


def _joined(parts: Sequence[Array], device: Any) -> Any:
    import torch

    return torch.from_numpy(np.concatenate(parts)).to(device)


class Hooks:
    """Uses `register_forward_hook` on each layer read."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._handles: list[Any] = []
        self._scores: list[Any] = []

    def attach(self, model: Any) -> None:
        """Add the hooks."""
        self._model, self._probes = model, _Probes(self._plan, model.device)
        blocks = decoder_blocks(model)
        self._handles = [
            blocks[layer - 1].register_forward_hook(self._hook(layer)) for layer in self._plan.layers
        ]

    def _hook(self, layer: int) -> Callable[..., None]:
        last = layer == self._plan.layers[-1]

        def hook(module: Any, arguments: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            self._scores.append(self._probes.scores(layer, hidden))
            if last and hidden.shape[1] > 1:
                _decide(self._scores)

        return hook

    def generate(self, arguments: Mapping[str, Any]) -> Any:
        """Generate with the hooks in place."""
        self._scores.clear()
        return self._model.generate(**arguments)

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class HiddenStates:
    """`output_hidden_states=True`: every layer of every step is kept; the prompt's are scored at the end."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def attach(self, model: Any) -> None:
        """Do nothing: transformers adds its own hooks on first use."""
        self._model, self._probes = model, _Probes(self._plan, model.device)
        self._before = {id(module): set(module._forward_hooks) for module in model.modules()}

    def generate(self, arguments: Mapping[str, Any]) -> Any:
        """Generate, and score the prompt's states at the end."""
        found = self._model.generate(**arguments, output_hidden_states=True, return_dict_in_generate=True)
        states = found.hidden_states[0]
        _decide([self._probes.scores(layer, states[layer]) for layer in self._probes.layers])
        return found.sequences

    def detach(self) -> None:
        """Remove the hooks that transformers leaves behind."""
        for module in self._model.modules():
            for key in set(module._forward_hooks) - self._before[id(module)]:
                del module._forward_hooks[key]
            module.__dict__.pop("_output_capturing_hooks_installed", None)


class NaiveTrace:
    """`NNsight(model)` as a whole, and one trace around `generate` that reads the layers at every step."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def attach(self, model: Any) -> None:
        """Wrap every module."""
        from guardrail.engines.transformers.nnsight import import_nnsight

        self._nnsight = import_nnsight()
        self._model, self._probes = model, _Probes(self._plan, model.device)
        self._before = {id(module): dict(module.__dict__) for module in model.modules()}
        self._wrapped = self._nnsight.NNsight(model)
        names = {id(module): name for name, module in model.named_modules()}
        blocks = decoder_blocks(model)
        self._paths = {layer: names[id(blocks[layer - 1])].split(".") for layer in self._plan.layers}

    def generate(self, arguments: Mapping[str, Any]) -> Any:
        """Generate, and save scores at every step."""
        nnsight, probes, result = self._nnsight, self._probes, list[Any]()
        envoys = {layer: reduce(_child, path, self._wrapped) for layer, path in self._paths.items()}
        steps = int(arguments["max_new_tokens"])

        def run(_: int) -> None:
            result.append(self._model.generate(**arguments))

        with self._wrapped.trace(0, fn=run) as tracer:
            scores = nnsight.save([])
            for _step in tracer.iter[:steps]:
                for layer, envoy in envoys.items():
                    scores.append(probes.scores(layer, envoy.output))
        _decide(scores[: len(envoys)])
        return result[0]

    def detach(self) -> None:
        """Restore every module's own `forward`."""
        for module in self._model.modules():
            before = self._before.get(id(module), {})
            for name in ("forward", "__nnsight__"):
                module.__dict__.pop(name, None)
                if name in before:
                    module.__dict__[name] = before[name]


def _child(envoy: Any, name: str) -> Any:
    return envoy[int(name)] if name.isdigit() else getattr(envoy, name)


def _decide(scores: list[Any]) -> bool:
    """One comparison on the host, as a decision needs it, which waits for the device once."""
    import torch

    return bool((torch.cat(scores, dim=1) > 1e9).any())


ALTERNATIVES: Mapping[str, Callable[[Plan], Alternative]] = {
    "hooks": Hooks,
    "hidden-states": HiddenStates,
    "nnsight": NaiveTrace,
}
"""The alternatives by their name for `--against`."""
