"""How transformers runs a loaded model: dtype, quantisation, attention, device, versions."""

from __future__ import annotations

from typing import Any

from guardrail.engines.configurations import releases
from guardrail.engines.transformers.blocks import text_config
from guardrail.engines.transformers.model import LocalModel
from guardrail.types import Configuration

PACKAGES = ("torch", "transformers")


def configuration(local: LocalModel, engine: str = "transformers") -> Configuration:
    """The configuration of the model as it is now."""
    quantisation, library = _quantisation(local.inner)
    return Configuration(
        engine=engine,
        dtype=str(local.inner.dtype).removeprefix("torch."),
        quantisation=quantisation,
        attention=str(getattr(text_config(local.inner), "_attn_implementation", None) or "eager"),
        device=local.device.type,
        chat_template=local.fingerprint.chat_template,
        versions=releases(*PACKAGES, *library),
    )


def _quantisation(inner: Any) -> tuple[str, tuple[str, ...]]:
    """In words, and the package that does it."""
    settings = getattr(inner.config, "quantization_config", None)
    if settings is None:
        return "none", ()
    given = getattr(settings, "quant_method", type(settings).__name__)
    method = str(getattr(given, "value", given))
    bits = [f"{n}bit" for n in (4, 8) if getattr(settings, f"load_in_{n}bit", False)]
    return " ".join([method, *bits]), (method,)
