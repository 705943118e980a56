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
from guardrail.traits.rubrics import PLACEHOLDERS, ROLE, default_rubric

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
    """A trait definition as written in a YAML file.

    Instead of `instructions` it may have `default` and `roles`, or questions that differ between the sides.
    """

    name: Annotated[str, AfterValidator(_name)]
    description: str = ""
    instructions: Annotated[tuple[PairModel, ...] | None, _AT_LEAST_ONE] = None
    default: tuple[str, ...] = ("",)
    roles: dict[str, tuple[Text, ...]] = {}
    extraction: Annotated[tuple[Text | PairModel, ...], _AT_LEAST_ONE]
    evaluation: Annotated[tuple[Text | PairModel, ...], _AT_LEAST_ONE]
    rubric: Text | None = None
    evaluation_instructions: tuple[PairModel, ...] = ()
    evaluation_rubric: Text | None = None
    examples: tuple[ExampleModel, ...] = ()

    @property
    def questions(self) -> tuple[Text | PairModel, ...]:
        """Both sets."""
        return (*self.extraction, *self.evaluation)


def check(data: Mapping[str, object]) -> tuple[DefinitionModel | None, list[Problem]]:
    """The definition in `data`, and every problem with it."""
    try:
        model = DefinitionModel.model_validate(data)
    except ValidationError as error:
        return None, [*_empty(data), *validation_problems(error, data, DefinitionModel)]
    found = [*_empty(data), *_sides(model), *_repeated(model), *_one_sided(model), *_placeholders(model)]
    return model, found


def complete(model: DefinitionModel, sha256: str) -> TraitDefinition:
    """The definition as a frozen value."""
    played = [(role, text) for role, texts in model.roles.items() for text in texts]
    given = model.instructions or ()
    pairs = [InstructionPair(positive=p.positive, negative=p.negative) for p in given]
    pairs += [
        InstructionPair(positive=model.default[i % len(model.default)], negative=text)
        for i, (_, text) in enumerate(played)
    ]
    rubric = model.rubric or default_rubric(model.name, model.description, roles=bool(played))
    return TraitDefinition(
        name=model.name,
        description=model.description,
        instructions=tuple(pairs) or (InstructionPair(positive="", negative=""),),
        extraction=tuple(map(plain, model.extraction)),
        evaluation=tuple(map(plain, model.evaluation)),
        rubric=rubric,
        sha256=sha256,
        examples=tuple(ReplyPair(**example.model_dump()) for example in model.examples),
        evaluation_instructions=tuple(
            InstructionPair(**p.model_dump()) for p in model.evaluation_instructions
        ),
        evaluation_rubric=model.evaluation_rubric or "",
        provoking={q.negative: q.positive for q in model.questions if isinstance(q, PairModel)},
        roles=tuple(role for role, _ in played),
    )


def plain(question: str | PairModel) -> str:
    """What the negative side and plain prompts ask."""
    return question.negative if isinstance(question, PairModel) else question


def normal(text: str) -> str:
    """The normal form of a text: texts with the same form count as duplicates."""
    words = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in words if letter.isalnum()) or words


def _empty(data: Mapping[str, object]) -> Iterator[Problem]:
    for key in ("instructions", "extraction", "evaluation"):
        if data.get(key) in ([], ()):
            yield Problem("must contain at least one item", (key,))
    if "instructions" not in data and "roles" not in data and not _two_sided(data):
        others = "`roles`, or `positive` and `negative` in every question"
        yield Problem(f"is missing; instead of it there may be {others}", ("instructions",))


def _two_sided(data: Mapping[str, object]) -> bool:
    """Whether the questions make the difference between the sides."""
    sets = [data.get(key) for key in ("extraction", "evaluation")]
    return all(isinstance(one, Sequence) and all(isinstance(q, Mapping) for q in one) for one in sets)


def _sides(model: DefinitionModel) -> Iterator[Problem]:
    if model.instructions is not None and model.roles:
        yield Problem("give either `instructions` or `roles`, not both", ("roles",))
    for role, texts in model.roles.items():
        if not texts:
            yield Problem("must contain at least one item", ("roles", role))
    if not model.default:
        yield Problem("must contain at least one item", ("default",))


def _repeated(model: DefinitionModel) -> Iterator[Problem]:
    positives = [pair.positive for pair in model.instructions or ()]
    yield from _twice([(("instructions", i, "positive"), text) for i, text in enumerate(positives)])
    asked = [(("extraction", i), plain(question)) for i, question in enumerate(model.extraction)]
    yield from _twice([*asked, *((("evaluation", i), plain(q)) for i, q in enumerate(model.evaluation))])


def _twice(texts: Sequence[tuple[KeyPath, str]]) -> Iterator[Problem]:
    first: dict[str, KeyPath] = {}
    for path, text in texts:
        earlier = first.setdefault(normal(text), path)
        if earlier != path:
            yield Problem(f"is the same as {Problem('', earlier).key}", path)


def _one_sided(model: DefinitionModel) -> Iterator[Problem]:
    for key in ("instructions", "evaluation_instructions", "extraction", "evaluation"):
        pairs: Sequence[str | PairModel] = getattr(model, key) or ()
        for i, pair in enumerate(pairs):
            if not isinstance(pair, str) and normal(pair.positive) == normal(pair.negative):
                yield Problem("positive and negative are the same", (key, i))


def _placeholders(model: DefinitionModel) -> Iterator[Problem]:
    wanted = (*PLACEHOLDERS, ROLE) if model.roles else PLACEHOLDERS
    for key in ("rubric", "evaluation_rubric"):
        rubric: str | None = getattr(model, key)
        for placeholder in wanted:
            if rubric is not None and placeholder not in rubric:
                yield Problem(f"lacks the placeholder {placeholder}", (key,))
