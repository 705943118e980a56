"""Reads trait definitions: built-in ones by name, YAML files, or the published JSON files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from guardrail.errors import PolicyError, Problem, TraitError
from guardrail.files.json_text import content, decoded
from guardrail.files.problems import suggest
from guardrail.files.yaml import MAX_BYTES, Document, parse_document
from guardrail.traits.checks import DefinitionModel, check, complete
from guardrail.traits.definition import TraitDefinition
from guardrail.traits.shapes import PUBLISHED, from_lists, from_published

FOLDER = Path(__file__).parent
EXTRACT, EVALUATE = "trait_data_extract", "trait_data_eval"
"""The two folders of the published definitions."""


def builtin_traits() -> tuple[str, ...]:
    """The names of the built-in definitions, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_definition(name_or_path: str | Path) -> TraitDefinition:
    """The built-in definition of that name, or the one in a YAML or JSON file.

    Raises TraitError with every problem of the file, or if there is no such definition.
    """
    name = str(name_or_path)
    if name in builtin_traits():
        return _from_yaml(FOLDER / f"{name}.yaml")
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise TraitError.single(
            f"there is no trait definition of this name{suggest(name, builtin_traits())}", name
        )
    return _from_json(path) if path.suffix == ".json" else _from_yaml(path)


def parse_definition(text: str, source: str = "trait") -> TraitDefinition:
    """A definition from YAML text. Raises TraitError."""
    try:
        document = parse_document(text, source)
    except PolicyError as error:
        raise TraitError(error.problems, error.source) from error
    return _definition(document.data, document, hashlib.sha256(text.encode()).hexdigest())


def dump_definition(definition: TraitDefinition) -> str:
    """The YAML text of a definition; `parse_definition` reads it back."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width, yaml.allow_unicode = 100, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    yaml.dump(_plain(definition), stream)
    return stream.getvalue()


def definition_schema() -> dict[str, Any]:
    """The JSON Schema of our YAML files."""
    return DefinitionModel.model_json_schema()


def _plain(definition: TraitDefinition) -> Mapping[str, object]:
    """The keys of a file, without those that are empty."""
    from ruamel.yaml.scalarstring import LiteralScalarString

    data: dict[str, Any] = asdict(definition)
    data |= {key: _questions(definition, data[key]) for key in ("extraction", "evaluation")}
    data |= {key: list(data[key]) for key in ("instructions", "examples", "evaluation_instructions")}
    data |= {key: LiteralScalarString(data[key]) for key in ("rubric", "evaluation_rubric") if data[key]}
    data |= _played(definition)
    always = ("name", "description", "rubric")
    return {key: data[key] for key in DefinitionModel.model_fields if key in always or data.get(key)}


def _questions(definition: TraitDefinition, questions: Sequence[str]) -> list[object]:
    asked = definition.provoking
    return [{"positive": asked[q], "negative": q} if q in asked else q for q in questions]


def _played(definition: TraitDefinition) -> Mapping[str, object]:
    """Roles with their instructions in place of pairs; no pairs where the questions make the difference."""
    pairs = definition.instructions
    if not definition.roles:
        return {} if any(pair.positive or pair.negative for pair in pairs) else {"instructions": []}
    roles: dict[str, list[str]] = {role: [] for role in definition.roles}
    for role, pair in zip(definition.roles, pairs, strict=True):
        roles[role].append(pair.negative)
    return {"instructions": [], "default": [pair.positive for pair in pairs], "roles": roles}


def _read(path: Path) -> bytes:
    try:
        return content(path, MAX_BYTES)
    except ValueError as error:
        raise TraitError.single(str(error), str(path)) from error


def _text(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraitError.single(f"the file is not UTF-8 text (byte {error.start})", str(path)) from error


def _from_yaml(path: Path) -> TraitDefinition:
    return parse_definition(_text(_read(path), path), str(path))


def _from_json(path: Path) -> TraitDefinition:
    raw = _read(path)
    data = _published(_object(raw, path), path)
    twin = _twin(path)
    if twin is not None:
        other = _read(twin)
        data, raw = _joined(data, _published(_object(other, twin), twin)), raw + other
    return _definition(data, Document(data=data, source=str(path)), hashlib.sha256(raw).hexdigest())


def _object(raw: bytes, path: Path) -> Mapping[str, object]:
    try:
        data = decoded(raw)
    except ValueError as error:
        raise TraitError([_misread(error)], str(path)) from error
    if not isinstance(data, dict):
        raise TraitError.single("the file must be a mapping of keys to values", str(path))
    return data


def _misread(error: ValueError) -> Problem:
    wrong = error.__cause__
    if isinstance(wrong, JSONDecodeError):
        return Problem(f"not JSON: {wrong.msg}", (), wrong.lineno, wrong.colno)
    return Problem(str(error))


def _published(data: Mapping[str, object], path: Path) -> dict[str, object]:
    return from_published(path.stem, data) if any(key in data for key in PUBLISHED) else dict(data)


def _twin(path: Path) -> Path | None:
    """The file with the evaluation questions; None if a single file holds everything."""
    if path.parent.name not in (EXTRACT, EVALUATE):
        return None
    if path.parent.name == EVALUATE:
        raise TraitError.single(
            f"contains only the evaluation questions; give the file in {EXTRACT}/", str(path)
        )
    twin = path.parent.parent / EVALUATE / path.name
    if not twin.is_file():
        raise TraitError.single(f"{twin} with the evaluation questions is missing", str(path))
    return twin


def _joined(data: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    own = {
        f"evaluation_{key}": other[key]
        for key in ("instructions", "rubric")
        if key in other and data.get(key) != other[key]
    }
    asked = {"extraction": data.pop("questions", None), "evaluation": other.get("questions")}
    return data | own | {key: value for key, value in asked.items() if value is not None}


def _definition(data: Mapping[str, object], document: Document, sha256: str) -> TraitDefinition:
    given, problems = from_lists(data)
    model, more = check(given)
    found = [*document.problems, *problems, *more]
    if found or model is None:
        raise TraitError(document.error(found).problems, document.source)
    return complete(model, sha256)
