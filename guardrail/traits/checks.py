"""Checks that data is a valid trait definition: first its types, then its content. Reads no files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from guardrail.errors import Problem
from guardrail.files.problems import KeyPath, validation_problems
from guardrail.traits.definition import InstructionPair, ReplyPair, TraitDefinition
from guardrail.traits.rubrics import PLACEHOLDERS, default_rubric

NAME = r"[^\W_][\w.-]*"
NAME_IN_WORDS = "letters, digits, `_`, `.` and `-`, starting with a letter or digit"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _name(text: str) -> str:
    if re.fullmatch(NAME, text) is None:
        raise ValueError(f"must be {NAME_IN_WORDS}, not `{text}`")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
# not `min_length`: pydantic does not count invalid items, so it would report one mistake twice
_AT_LEAST_ONE = Field(json_schema_extra={"minItems": 1})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PairModel(_Strict):
    """Two system prompts that differ in one thing: whether they ask for the trait."""

    positive: Text
    negative: Text


class ExampleModel(_Strict):
    """A question with a reply that shows the trait and one that does not."""

    question: Text
    positive: Text
    negative: Text


class DefinitionModel(_Strict):
    """A trait definition as written in a YAML file."""

    name: Annotated[str, AfterValidator(_name)]
    description: str = ""
    instructions: Annotated[tuple[PairModel, ...], _AT_LEAST_ONE]
    extraction: Annotated[tuple[Text, ...], _AT_LEAST_ONE]
    evaluation: Annotated[tuple[Text, ...], _AT_LEAST_ONE]
    rubric: Text | None = None
    examples: tuple[ExampleModel, ...] = ()


def check(data: Mapping[str, object]) -> tuple[DefinitionModel | None, list[Problem]]:
    """The definition in `data`, and every problem with it."""
    try:
        model = DefinitionModel.model_validate(data)
    except ValidationError as error:
        return None, [*_empty(data), *validation_problems(error, data, DefinitionModel)]
    return model, [*_empty(data), *_repeated(model), *_one_sided(model), *_placeholders(model)]


def complete(model: DefinitionModel, sha256: str) -> TraitDefinition:
    """The definition as a frozen value."""
    pairs = [InstructionPair(positive=p.positive, negative=p.negative) for p in model.instructions]
    return TraitDefinition(
        name=model.name,
        description=model.description,
        instructions=tuple(pairs),
        extraction=model.extraction,
        evaluation=model.evaluation,
        rubric=model.rubric or default_rubric(model.name, model.description),
        sha256=sha256,
        examples=tuple(ReplyPair(**example.model_dump()) for example in model.examples),
    )


def normal(text: str) -> str:
    """The normal form of a text: texts with the same form count as duplicates."""
    words = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in words if letter.isalnum()) or words


def _empty(data: Mapping[str, object]) -> Iterator[Problem]:
    for key in ("instructions", "extraction", "evaluation"):
        if data.get(key) in ([], ()):
            yield Problem("must contain at least one item", (key,))


def _repeated(model: DefinitionModel) -> Iterator[Problem]:
    positives = [pair.positive for pair in model.instructions]
    yield from _twice([(("instructions", i, "positive"), text) for i, text in enumerate(positives)])
    asked = [(("extraction", i), text) for i, text in enumerate(model.extraction)]
    yield from _twice([*asked, *((("evaluation", i), text) for i, text in enumerate(model.evaluation))])


def _twice(texts: Sequence[tuple[KeyPath, str]]) -> Iterator[Problem]:
    first: dict[str, KeyPath] = {}
    for path, text in texts:
        earlier = first.setdefault(normal(text), path)
        if earlier != path:
            yield Problem(f"is the same as {Problem('', earlier).key}", path)


def _one_sided(model: DefinitionModel) -> Iterator[Problem]:
    for i, pair in enumerate(model.instructions):
        if normal(pair.positive) == normal(pair.negative):
            yield Problem("positive and negative are the same", ("instructions", i))


def _placeholders(model: DefinitionModel) -> Iterator[Problem]:
    for placeholder in PLACEHOLDERS:
        if model.rubric is not None and placeholder not in model.rubric:
            yield Problem(f"lacks the placeholder {placeholder}", ("rubric",))
