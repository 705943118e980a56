"""Weights that are neither plain parameters nor buffers: packed and wrapped ones."""

import warnings

import pytest
import torch
from tiny import NEVER, TOKENIZER, policies, policy, write_vectors
from torch import nn
from torch.utils._pytree import tree_map

from guardrail import Guard
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.watch import Watch
from guardrail.engines.transformers.weights import digest
from guardrail.testing import tiny_model

PLACE = "model.layers.0.mlp.up_proj"


class Wrapped(torch.Tensor):
    """Keeps its values in another tensor, as quantised and distributed weights do, and has no views."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    def __tensor_flatten__(self):
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride):
        return Wrapped(parts["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.view.default:
            raise NotImplementedError("a quantised weight has no other shape")
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner.detach())
        args, kwargs = tree_map(lambda one: one.inner if isinstance(one, cls) else one, (args, kwargs or {}))
        return func(*args, **kwargs)


def packed(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def wrapped(model):
    module = model.get_submodule(PLACE)
    module.weight = nn.Parameter(Wrapped(module.weight.data), requires_grad=False)
    return model


def scaled(factor):
    model = tiny_model()
    model.get_submodule(PLACE).weight.data *= factor
    return model


def mark(model):
    return fingerprint(model, TOKENIZER, TOKENIZER.chat_template, {}).weights


@pytest.fixture(params=[packed, wrapped])
def hidden(request):
    return request.param


def test_other_weights_are_another_model(hidden):
    assert mark(hidden(tiny_model())) == mark(hidden(tiny_model())) != mark(hidden(scaled(2)))
    assert digest(hidden(tiny_model())) == digest(hidden(tiny_model())) != digest(hidden(scaled(2)))


def test_a_model_with_such_weights_is_guarded(hidden, tmp_path):
    model = hidden(tiny_model())
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as made:
        assert made.chat("Hello", max_new_tokens=2).decision.status == "evaluated"


def test_other_packed_weights_are_a_change():
    model = packed(tiny_model())
    watch, module = Watch(model), model.get_submodule(PLACE)
    assert watch.change() is None
    weight, bias = module._weight_bias()
    module.set_weight_bias(weight, bias)
    assert watch.change() == "parts of quantised weights"


def test_values_and_parts_of_a_wrapped_weight_are_watched():
    model = wrapped(tiny_model())
    watch, weight = Watch(model), model.get_submodule(PLACE).weight
    assert watch.change() is None
    weight.inner = weight.inner.clone()
    assert watch.change() == "parts of quantised weights"
    model = wrapped(tiny_model())
    watch = Watch(model)
    model.get_submodule(PLACE).weight.inner.mul_(2)
    assert "values of weights" in watch.change()
