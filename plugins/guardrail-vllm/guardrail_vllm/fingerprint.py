"""Which model vLLM serves and how, in the words of vectors and calibrations."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from guardrail.engines.configurations import releases
from guardrail.engines.transformers.fingerprint import described
from guardrail.engines.transformers.rendering import Renderer
from guardrail.engines.transformers.weights import source_of
from guardrail.errors import ModelError
from guardrail.types import Configuration, Fingerprint
from guardrail_vllm.versions import DISTRIBUTIONS


def fingerprint(config: Any, renderer: Renderer) -> Fingerprint:
    """The fingerprint of vLLM's model, which its files identify.

    Raises ModelError for weights that are in no files here, and for those that are made up.
    """
    if config.load_config.load_format == "dummy":
        raise ModelError("the model has made-up weights (load format `dummy`), so no vectors are for it")
    folder, hf = config.model_config.model, config.model_config.hf_config
    found = source_of(SimpleNamespace(name_or_path=folder, config=hf))
    if found is None:
        raise ModelError(f"{folder}: no safetensors files, by which vectors know their model")
    architecture = (getattr(hf, "architectures", None) or [type(hf).__name__])[0]
    template, arguments = renderer.template, renderer.arguments
    return described(
        architecture, config.model_config.hf_text_config, found[0], renderer.tokenizer, template, arguments
    )


def configuration(config: Any, model: Fingerprint) -> Configuration:
    """How vLLM runs the model with this fingerprint."""
    return Configuration(
        engine="vllm",
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        quantisation=str(config.model_config.quantization or "none"),
        attention=str(config.attention_config.backend or "auto"),
        device=str(config.device_config.device_type),
        chat_template=model.chat_template,
        versions=releases("torch", *DISTRIBUTIONS),
    )
