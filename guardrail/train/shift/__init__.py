"""How far finetuning moved a model along every trait: activation shifts, and what they predict."""

from guardrail.train.shift.meter import Reading, ShiftMeter, trait_questions
from guardrail.train.shift.relation import Prediction, Relation, Run, TraitRelation
from guardrail.train.shift.results import Descent, LayerShift, Overlap, Shift, TraitShift

__all__ = [
    "Descent",
    "LayerShift",
    "Overlap",
    "Prediction",
    "Reading",
    "Relation",
    "Run",
    "Shift",
    "ShiftMeter",
    "TraitRelation",
    "TraitShift",
    "trait_questions",
]
