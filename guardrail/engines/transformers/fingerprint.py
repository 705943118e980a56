"""What ties vectors and a calibration to a model, taken from the model and its tokenizer.

Weights that are those of their files are identified by the files, so that the dtype they are loaded in does
not matter; the others by a sample of their bits. Whatever no file explains is added: adapters of any
library with their settings, tensors that were converted or put in, buffers that were changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.additions import additions, settings, unfiled_tensors
from guardrail.engines.transformers.blocks import text_config, unwrapped
from guardrail.engines.transformers.generation_marks import unmarked
from guardrail.engines.transformers.held import packed
from guardrail.engines.transformers.origin import Origin
from guardrail.engines.transformers.weights import sampled, source_of, unexplained
from guardrail.types import Fingerprint


def fingerprint(
    model: Any, tokenizer: Any, chat_template: str, template_arguments: Mapping[str, object]
) -> Fingerprint:
    """The fingerprint of a loaded model. Reads some rows of every tensor, not the whole.

    It notices every change that reaches all values of a tensor (scaling, finetuning, a merged adapter), and
    adapters: their weights, scaling, which are active, merged or switched off. A change of single rows of a
    tensor after loading, or of hooks, is not in it; `Watch` sees those while the model is guarded.
    """
    inner = unwrapped(model)
    architecture, config = type(inner).__name__, text_config(inner)
    return described(architecture, config, _weights(inner), tokenizer, chat_template, template_arguments)


def described(
    architecture: str,
    config: Any,
    weights: str,
    tokenizer: Any,
    chat_template: str,
    template_arguments: Mapping[str, object],
) -> Fingerprint:
    """The fingerprint of a model that somebody else has loaded. `weights` is as `weights.source_of` says."""
    template = json.dumps([unmarked(chat_template), dict(template_arguments)], sort_keys=True, default=str)
    return Fingerprint(
        architecture=architecture,
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        vocab_size=config.vocab_size,
        weights=weights,
        tokenizer=_sha(json.dumps(sorted(tokenizer.get_vocab().items()))),
        chat_template=_sha(template),
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _weights(model: Any) -> str:
    if origin := Origin.of(model):
        return origin.identity + _added(model, origin.unexplained(dict(_stored(model))))
    if source := source_of(model):
        identity, files = source
        return identity + _added(model, unexplained(dict(_stored(model)), files))
    parameters = set(map(id, model.parameters()))
    buffers = {name: tensor for name, tensor in _stored(model) if id(tensor) not in parameters}
    return f"memory:{_memory_digest(model)}" + _added(model, buffers)


def _stored(model: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors that a file would hold, by all of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    for name, module in model.named_modules():
        for key, buffer in module.named_buffers(recurse=False):
            if key not in module._non_persistent_buffers_set:
                yield f"{name}.{key}".removeprefix("."), buffer


def _memory_digest(model: Any) -> str:
    digest = hashlib.sha256()
    held = [*model.named_parameters(), *packed(model)]
    for name, parameter in sorted(held, key=itemgetter(0)):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.device.type != "meta":
            digest.update(sampled(parameter).numpy().tobytes())
    return digest.hexdigest()[:32]


def _rounded(name: str, tensor: Tensor) -> bytes:
    """A tensor by a sample of it, so that the dtype that it is loaded in does not matter."""
    named = f"{name}{tuple(tensor.shape)}".encode()
    if tensor.device.type == "meta":
        return named
    return named + sampled(tensor).to(torch.bfloat16).float().numpy().tobytes()


def _added(model: Any, tensors: Mapping[str, Tensor]) -> str:
    """What the source of the weights does not explain, or nothing."""
    values = dict(tensors) | dict(unfiled_tensors(model))
    modules = additions(model)
    if not values and not modules:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(values.items()):
        digest.update(_rounded(name, tensor))
    for name, module in modules.items():
        digest.update(json.dumps([name, type(module).__name__, settings(module)]).encode())
    return f"+added:{digest.hexdigest()[:16]}"
