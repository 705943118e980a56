"""guardrail reads a local language model's activations before its first token, and acts on them.

The public names, and nothing else. They load lazily, so that `import guardrail` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.calibration.values import Calibration as Calibration
    from guardrail.errors import AuditError as AuditError
    from guardrail.errors import CalibrationError as CalibrationError
    from guardrail.errors import ConfigError as ConfigError
    from guardrail.errors import EndpointError as EndpointError
    from guardrail.errors import EscalationError as EscalationError
    from guardrail.errors import EvaluationError as EvaluationError
    from guardrail.errors import ExtractionError as ExtractionError
    from guardrail.errors import GuardClosed as GuardClosed
    from guardrail.errors import GuardrailError as GuardrailError
    from guardrail.errors import JudgeError as JudgeError
    from guardrail.errors import ModelError as ModelError
    from guardrail.errors import NotInduced as NotInduced
    from guardrail.errors import PluginError as PluginError
    from guardrail.errors import PolicyError as PolicyError
    from guardrail.errors import PromptError as PromptError
    from guardrail.errors import QueueFull as QueueFull
    from guardrail.errors import RequestError as RequestError
    from guardrail.errors import SteeringError as SteeringError
    from guardrail.errors import TooFewPairs as TooFewPairs
    from guardrail.errors import TraitError as TraitError
    from guardrail.errors import UnsupportedGeneration as UnsupportedGeneration
    from guardrail.errors import VectorError as VectorError
    from guardrail.guard import Guard as Guard
    from guardrail.plugins.hookspecs import hookimpl as hookimpl
    from guardrail.policy.model import PolicySet as PolicySet
    from guardrail.types import Check as Check
    from guardrail.types import Decision as Decision
    from guardrail.types import Message as Message
    from guardrail.types import Probe as Probe
    from guardrail.types import Reply as Reply
    from guardrail.types import Score as Score
    from guardrail.types import Ticket as Ticket
    from guardrail.vectors.values import TraitVector as TraitVector
    from guardrail.vectors.values import TraitVectors as TraitVectors

_ERRORS = (
    "AuditError",
    "CalibrationError",
    "ConfigError",
    "EndpointError",
    "EscalationError",
    "EvaluationError",
    "ExtractionError",
    "GuardClosed",
    "GuardrailError",
    "JudgeError",
    "ModelError",
    "NotInduced",
    "PluginError",
    "PolicyError",
    "PromptError",
    "QueueFull",
    "RequestError",
    "SteeringError",
    "TooFewPairs",
    "TraitError",
    "UnsupportedGeneration",
    "VectorError",
)
_TYPES = ("Check", "Decision", "Message", "Probe", "Reply", "Score", "Ticket")
_HOMES = {
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(_TYPES, "types"),
    "Calibration": "calibration.values",
    "Guard": "guard",
    "PolicySet": "policy.model",
    "TraitVector": "vectors.values",
    "TraitVectors": "vectors.values",
    "hookimpl": "plugins.hookspecs",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'guardrail' has no attribute {name!r}")
    return getattr(import_module(f"guardrail.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
