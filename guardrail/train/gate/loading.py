"""Reads persona policies, with every problem at its line and column; and finds the files that they name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from guardrail.errors import ConfigError, Problem, VectorError
from guardrail.files.problems import validation_problems
from guardrail.files.yaml import Document, copied, read_document
from guardrail.train.gate.policy import PersonaPolicy
from guardrail.vectors.values import no_vector

Vectors: TypeAlias = Callable[[str | None], Iterable[str]]
"""From the value of `vectors` to the traits of the file. Raises ConfigError or VectorError."""
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


def load(path: Path, vectors: Vectors | None = None) -> PersonaFile:
    """Read a policy. Raises PolicyError with every problem.

    vectors: opens the vector file that the policy names; every trait must be in it.
    """
    document = read_document(path)
    data = copied(document.data, document.source)
    policy, problems = _validated(data)
    problems = [*document.problems, *problems, *_missing_files(data, path.parent)]
    if vectors is not None:
        problems += _unknown_traits(data, vectors)
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


def _unknown_traits(data: Mapping[str, Any], vectors: Vectors) -> list[Problem]:
    """Also of a policy with other mistakes, as far as the keys that matter here can be read."""
    name, traits = data.get("vectors"), data.get("traits")
    if not isinstance(name, str | None) or not isinstance(traits, dict):
        return []
    try:
        known = list(vectors(name))
    except (ConfigError, VectorError) as error:
        return [Problem(str(error), ("vectors",))]
    return [Problem(no_vector(trait, known), ("traits", trait)) for trait in traits if trait not in known]


def _at(data: Any, keys: Sequence[str]) -> object:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return None
        data = data[key]
    return data
