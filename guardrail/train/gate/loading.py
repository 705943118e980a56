"""Reads persona policies, with every problem at its line and column; and finds the files that they name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from guardrail.errors import Problem
from guardrail.files.problems import suggest, validation_problems
from guardrail.files.yaml import Document, copied, read_document
from guardrail.train.gate.policy import PersonaPolicy

SCHEMA = Path(__file__).with_name("schema.json")
"""The JSON Schema, for editors."""
FILES = (
    ("capability", "questions"),
    ("held_out_loss", "conversations"),
    ("triggers", "prompts"),
    ("data", "clean"),
    ("definition",),
)
"""The keys that name files, relative to the policy's folder."""


@dataclass(frozen=True, slots=True)
class PersonaFile:
    """A policy as it was read, and where it stands."""

    path: Path
    policy: PersonaPolicy
    sha256: str
    document: Document = field(repr=False)

    def file(self, *keys: str) -> Path | None:
        """The file that a key names, beside the policy."""
        value = _at(self.document.data, keys)
        return self.path.parent / value if isinstance(value, str) else None

    def check_traits(self, known: Iterable[str]) -> None:
        """Raises PolicyError with every trait that has no vector."""
        names = list(known)
        problems = [
            Problem(f"there is no vector for this trait{suggest(trait, names)}", ("traits", trait))
            for trait in self.policy.traits
            if trait not in names
        ]
        if problems:
            raise self.document.error(problems)


def load(path: Path) -> PersonaFile:
    """Read a policy. Raises PolicyError with every problem."""
    document = read_document(path)
    data = copied(document.data, document.source)
    policy, problems = _validated(data)
    problems = [*document.problems, *problems, *_missing_files(data, path.parent)]
    if problems or policy is None:
        raise document.error(problems)
    return PersonaFile(path, policy, hashlib.sha256(path.read_bytes()).hexdigest(), document)


def schema() -> dict[str, Any]:
    """The JSON Schema of a persona policy."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "guardrail persona policy"}
    return PersonaPolicy.model_json_schema() | head


def _validated(data: Mapping[str, Any]) -> tuple[PersonaPolicy | None, list[Problem]]:
    try:
        return PersonaPolicy.model_validate(data), []
    except ValidationError as error:
        return None, validation_problems(error, data, PersonaPolicy)


def _missing_files(data: Mapping[str, Any], folder: Path) -> list[Problem]:
    named = ((keys, _at(data, keys)) for keys in FILES)
    return [
        Problem(f"there is no file {folder / value}", keys)
        for keys, value in named
        if isinstance(value, str) and not (folder / value).exists()
    ]


def _at(data: Any, keys: Sequence[str]) -> object:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return None
        data = data[key]
    return data
