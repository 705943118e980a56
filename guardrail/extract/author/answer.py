"""Turns an author model's answer into a trait definition, or into a list of all its problems."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.errors import Problem
from guardrail.extract.author.prompt import PAIRS, QUESTIONS
from guardrail.files.json_text import decoded
from guardrail.traits.checks import DefinitionModel, check, normal
from guardrail.traits.shapes import PUBLISHED, from_published

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
KEYS = ("instructions", "questions", "rubric")
COUNTS = {"instructions": (PAIRS, "pairs"), "questions": (QUESTIONS, "questions")}
WORDS = ("REFUSAL", "100")
"""The words that a rubric must contain in any language."""


def read_definition(text: str, name: str, description: str) -> tuple[DefinitionModel | None, list[Problem]]:
    """The definition in an answer. Do not use it if there are problems.

    Questions alternate between extraction and evaluation: authors write them in clusters by theme, and
    both sets should cover all themes.
    """
    data, problems = _object(text)
    if data is None:
        return None, problems
    if any(key in data for key in PUBLISHED if key not in KEYS):
        data = from_published(name, data)
    problems = [*_missing(data), *_counted(data)]
    model, found = check(_split(data, name, description))
    return model, [
        *problems,
        *(_in_their_keys(p) for p in found if not _told(p, problems)),
        *_unsaid(data),
        *_named(data, name),
    ]


def _object(text: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    fenced = _FENCE.search(text)
    body = fenced[1] if fenced else text[text.find("{") : text.rfind("}") + 1]
    try:
        data = decoded(body.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        return None, [Problem(f"the answer is {error}")]
    if not isinstance(data, dict):
        return None, [Problem("the answer is not a JSON object")]
    return data, []


def _missing(data: Mapping[str, object]) -> list[Problem]:
    return [Problem("is missing", (key,)) for key in KEYS if data.get(key) is None]


def _counted(data: Mapping[str, object]) -> list[Problem]:
    found: list[Problem] = []
    for key, (wanted, things) in COUNTS.items():
        value = data.get(key)
        if isinstance(value, list) and len(value) != wanted:
            found.append(Problem(f"must hold {wanted} {things}, not {len(value)}", (key,)))
        elif value is not None and not isinstance(value, list):
            found.append(Problem("must be a list", (key,)))
    return found


def _split(data: Mapping[str, object], name: str, description: str) -> dict[str, object]:
    questions = data.get("questions")
    listed: Sequence[object] = questions if isinstance(questions, list) else []
    pairs = data.get("instructions")
    return {
        "name": name,
        "description": description,
        "instructions": pairs if isinstance(pairs, list) else [],
        "extraction": list(listed[0::2]),
        "evaluation": list(listed[1::2]),
        "rubric": data.get("rubric"),
    }


def _told(problem: Problem, told: Sequence[Problem]) -> bool:
    """Whether the problem is already reported. An empty list and a missing key are one mistake."""
    keys = {p.path[0] for p in told}
    key = _in_their_keys(problem).path[:1]
    return len(problem.path) == 1 and bool(key) and key[0] in keys


def _in_their_keys(problem: Problem) -> Problem:
    """The problem with its place in the author's single list of questions."""
    offsets = {"extraction": 0, "evaluation": 1}
    message = re.sub(
        r"\b(extraction|evaluation)\[(\d+)\]",
        lambda m: f"questions[{2 * int(m[2]) + offsets[m[1]]}]",
        problem.message,
    )
    key, *rest = problem.path or ("",)
    if key not in offsets:
        return Problem(message, problem.path)
    place = [2 * i + offsets[str(key)] if isinstance(i, int) else i for i in rest]
    return Problem(message, ("questions", *place))


def _named(data: Mapping[str, object], name: str) -> list[Problem]:
    """Problems for questions that name the trait. Short names are skipped: too many words contain them."""
    word, questions = normal(name), data.get("questions")
    if (len(word) < 4 and word.isascii()) or not isinstance(questions, list):
        return []
    texts = [(i, text) for i, text in enumerate(questions) if isinstance(text, str)]
    return [Problem("names the trait", ("questions", i)) for i, text in texts if word in normal(text)]


def _unsaid(data: Mapping[str, object]) -> list[Problem]:
    rubric = data.get("rubric")
    if not isinstance(rubric, str):
        return []
    return [Problem(f"does not mention {word}", ("rubric",)) for word in WORDS if word not in rubric]
