"""Trait definitions: prompts that ask for or forbid a trait, questions, and a rubric for the judge.

The built-in definitions are the YAML files in this folder. Reading them needs no torch.
"""

from guardrail.traits.definition import InstructionPair, ReplyPair, TraitDefinition
from guardrail.traits.files import (
    builtin_traits,
    definition_schema,
    dump_definition,
    load_definition,
    parse_definition,
)
from guardrail.traits.rubrics import ROLE, default_rubric, fill

__all__ = [
    "ROLE",
    "InstructionPair",
    "ReplyPair",
    "TraitDefinition",
    "builtin_traits",
    "default_rubric",
    "definition_schema",
    "dump_definition",
    "fill",
    "load_definition",
    "parse_definition",
]
