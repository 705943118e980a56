"""Converts other formats of trait definitions into the format of this project.

The published format has `instruction` (pairs of `pos` and `neg`), `questions` and `eval_prompt`. A file with
40 questions holds both sets: the first half for extraction, the second for evaluation. A definition may also
be split into `trait_data_extract/NAME.json` and `trait_data_eval/NAME.json`, with 20 questions each. Lists of
`positive` and `negative` prompts are paired in order; if there are fewer negative ones, they repeat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle

from guardrail.errors import Problem

PUBLISHED = ("instruction", "questions", "eval_prompt")
_KEYS = {"pos": "positive", "neg": "negative"}
_MEANING = re.compile(r"\*\*[.:]?\s+(.+)", re.DOTALL)


def from_published(name: str, data: Mapping[str, object]) -> dict[str, object]:
    """The published JSON format with our keys; `from_lists` halves `questions`."""
    pairs = data.get("instruction")
    rubric = data.get("eval_prompt")
    renamed: dict[str, object] = {"name": name, "description": _meaning(rubric)}
    if isinstance(pairs, Sequence) and not isinstance(pairs, str):
        renamed["instructions"] = [_pair(pair) for pair in pairs]
    renamed |= {"questions": data["questions"]} if "questions" in data else {}
    renamed |= {"rubric": rubric} if rubric is not None else {}
    return renamed | {key: value for key, value in data.items() if key not in PUBLISHED}


def from_lists(data: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """`questions` in two halves, and `positive` and `negative` in pairs, if the file has them."""
    given, problems = dict(data), list[Problem]()
    questions, positive, negative = (given.get(key) for key in ("questions", "positive", "negative"))
    if isinstance(questions, list) and "extraction" not in given and "evaluation" not in given:
        del given["questions"]
        given |= _halves(questions, problems)
    if isinstance(positive, list) and isinstance(negative, list):
        del given["positive"], given["negative"]
        given |= _paired(positive, negative, problems)
    return given, problems


def _pair(pair: object) -> object:
    return {_KEYS.get(k, k): v for k, v in pair.items()} if isinstance(pair, Mapping) else pair


def _meaning(rubric: object) -> str:
    """The sentence of a published rubric that says what the trait means."""
    first = rubric.split("\n\n")[0] if isinstance(rubric, str) else ""
    found = _MEANING.search(first)
    return found[1].strip() if found else ""


def _halves(questions: Sequence[object], problems: list[Problem]) -> dict[str, object]:
    if len(questions) % 2:
        problems.append(Problem(f"must be an even number of questions, not {len(questions)}", ("questions",)))
    half = len(questions) // 2
    return {"extraction": list(questions[:half]), "evaluation": list(questions[half:])}


def _paired(
    positive: Sequence[object], negative: Sequence[object], problems: list[Problem]
) -> dict[str, object]:
    if not len(positive) >= len(negative) > 0:
        text = f"{len(positive)} positive and {len(negative)} negative prompts cannot be paired"
        problems.append(Problem(text, ("negative",)))
    return {"instructions": [{"positive": p, "negative": n} for p, n in zip(positive, cycle(negative))]}
