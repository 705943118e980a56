"""Before and during training: what data would change a model's character, and how to keep it.

The public names load when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.train.ablation import ConceptAblation
    from guardrail.train.finetuning.run import finetune
    from guardrail.train.finetuning.settings import FinetuneSettings, Lora
    from guardrail.train.gate.gate import PersonaGate
    from guardrail.train.intervention import Applied, Intervention
    from guardrail.train.prompting import InoculationPrompting, PreventativePrompting
    from guardrail.train.regularisation import ProjectionRegulariser
    from guardrail.train.screening import Screener, ScreeningSettings, thresholds_of
    from guardrail.train.shift.meter import ShiftMeter, trait_questions
    from guardrail.train.shift.relation import Relation
    from guardrail.train.steering import PreventativeSteering

__all__ = [
    "Applied",
    "ConceptAblation",
    "FinetuneSettings",
    "InoculationPrompting",
    "Intervention",
    "Lora",
    "PersonaGate",
    "PreventativePrompting",
    "PreventativeSteering",
    "ProjectionRegulariser",
    "Relation",
    "Screener",
    "ScreeningSettings",
    "ShiftMeter",
    "finetune",
    "thresholds_of",
    "trait_questions",
]

_PLACES = {
    "Applied": "intervention",
    "ConceptAblation": "ablation",
    "FinetuneSettings": "finetuning.settings",
    "InoculationPrompting": "prompting",
    "Intervention": "intervention",
    "Lora": "finetuning.settings",
    "PersonaGate": "gate.gate",
    "PreventativePrompting": "prompting",
    "PreventativeSteering": "steering",
    "ProjectionRegulariser": "regularisation",
    "Relation": "shift.relation",
    "Screener": "screening",
    "ScreeningSettings": "screening",
    "ShiftMeter": "shift.meter",
    "finetune": "finetuning.run",
    "thresholds_of": "screening",
    "trait_questions": "shift.meter",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
