"""guardrail reads a local language model's activations before its first token, and acts on them.

The public names load when they are first used, so that `import guardrail` needs no torch. Errors that few
programs catch by name are in `guardrail.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.calibration.values import Calibration
    from guardrail.errors import (
        ConfigError,
        GuardClosed,
        GuardrailError,
        PolicyError,
        PromptError,
        QueueFull,
        RequestError,
        UnsupportedGeneration,
    )
    from guardrail.guard import Guard
    from guardrail.plugins.hookspecs import hookimpl
    from guardrail.policy.model import PolicySet
    from guardrail.types import Check, Decision, Message, Probe, RawPrompt, Reply, Score, Ticket, ToolCall
    from guardrail.vectors.values import TraitVector, TraitVectors

__version__ = "0.1.0"

__all__ = [
    "Calibration",
    "Check",
    "ConfigError",
    "Decision",
    "Guard",
    "GuardClosed",
    "GuardrailError",
    "Message",
    "PolicyError",
    "PolicySet",
    "Probe",
    "PromptError",
    "QueueFull",
    "RawPrompt",
    "Reply",
    "RequestError",
    "Score",
    "Ticket",
    "ToolCall",
    "TraitVector",
    "TraitVectors",
    "UnsupportedGeneration",
    "hookimpl",
]

_OUTSIDE_TYPES = {
    "Calibration": "calibration.values",
    "Guard": "guard",
    "PolicySet": "policy.model",
    "TraitVector": "vectors.values",
    "TraitVectors": "vectors.values",
    "hookimpl": "plugins.hookspecs",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'guardrail' has no attribute {name!r}")
    errors = import_module("guardrail.errors")
    home = "errors" if hasattr(errors, name) else _OUTSIDE_TYPES.get(name, "types")
    return getattr(import_module(f"guardrail.{home}"), name)


def __dir__() -> list[str]:
    return __all__
