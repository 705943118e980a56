"""`python -m benchmarks.real.refusal`: the refusal direction of Qwen 0.5B, added and ablated.

Some prompts give the direction, others choose its place, others get replies, which a rule on strings matches.
`--readings FILE` is what a person found in them: JSON Lines of `cell`, `prompt` (its number), `sha256` (of
the reply) and `read` (refusal, answer or broken). Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real import prompt_files, results
from benchmarks.real.coherence import fluency
from benchmarks.real.judges import refuses
from benchmarks.real.models import QWEN_05B
from benchmarks.real.persona_vectors import said
from benchmarks.real.prompt_files import Prompt
from benchmarks.real.refusal_direction import Parts, sweep, vectors
from benchmarks.real.subjects import subject
from guardrail.errors import ExtractionError
from guardrail.extract.journal import Journal
from guardrail.extract.layers.effects import ablating, adding
from guardrail.extract.layers.measurements import Sweep
from guardrail.extract.layers.selection import by_refusal
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Estimate, rate
from guardrail.types import Steering
from guardrail.vectors.provenance import LayerChoice
from guardrail.vectors.values import TraitVector

FIT, CHOOSE, TEST, NEW_TOKENS = 96, 12, 30, 40
MULTIPLES = (1.0, 2.0, 4.0)
"""Of the vector, added for harmless prompts."""
READ = ("refusal", "answer", "broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Replies to one kind of prompts under one kind of steering. `read`: shares by what a person found."""

    prompts: str
    steering: str
    n: int
    rule: Estimate
    read: Mapping[str, Estimate] | None
    rule_wrong: int | None
    perplexity: float
    coherent: Estimate


def main() -> int:
    arguments = _arguments()
    harmful, harmless = (
        Parts.of(
            prompt_files.shuffled(prompt_files.read(arguments.data / "prompts" / name)), FIT, CHOOSE, TEST
        )
        for name in ("harmful.jsonl", "benign.jsonl")
    )
    folder = results.RUNS / "refusal"
    model = subject(QWEN_05B)
    found = vectors(model, harmful.fit, harmless.fit)
    measured = sweep(model, found, harmful.choose, harmless.choose, folder)
    choice, note = chosen(measured)
    vector = found[choice.position or -1]
    asked = {"harmful": harmful.test, "harmless": harmless.test}
    rows = replies(model, asked, steerings(vector, choice.layer), folder)
    read = readings(arguments.readings, rows)
    saved = {
        "model": QWEN_05B.name,
        "choice": choice,
        "baseline": measured.baseline,
        "cells": cells(rows, read),
    }
    print(results.save("refusal", saved, [note] if note else []))
    return 0


def chosen(measured: Sweep) -> tuple[LayerChoice, str]:
    """By the rule; if no direction induces refusals, by the rule without that limit, and a note."""
    try:
        return by_refusal(measured), ""
    except ExtractionError as error:
        return by_refusal(measured, min_induce=-np.inf), f"{error}. So it was chosen without that limit."


def steerings(vector: TraitVector, layer: int) -> dict[str, list[Steering]]:
    """What is compared: added at its layer, ablated at every layer, from the last prompt token on."""
    added = {f"added-{multiple:g}": [adding(vector, layer, multiple)] for multiple in MULTIPLES}
    return {"none": [], "ablated": [ablating(vector, layer)], **added}


def replies(
    model: Subject,
    asked: Mapping[str, Sequence[Prompt]],
    steered: Mapping[str, Sequence[Steering]],
    folder: Path,
) -> list[dict[str, Any]]:
    """Greedy replies to every prompt under every steering; a batch is a cell. Nothing is added for harm."""
    places = [(kind, name) for kind in asked for name in steered if (kind, name[:5]) != ("harmful", "added")]
    digest = hashlib.sha256()
    for one in (steering for name in steered for steering in steered[name]):
        digest.update(b"".join(one.direction(i).tobytes() for i in range(len(one.layers))))
    recipe = {"model": model.fingerprint.weights, "steering": digest.hexdigest(), "places": places}
    journal = Journal(folder / "replies.jsonl", recipe, len(places) * TEST, TEST)

    def rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
        kind, name = places[numbers[0] // TEST]
        return _cell(model, kind, name, asked[kind], steered[name])

    return list(journal.complete("refusal: replies", rows, said))


def _cell(
    model: Subject, kind: str, name: str, prompts: Sequence[Prompt], steering: Sequence[Steering]
) -> list[dict[str, Any]]:
    messages = [prompt.messages for prompt in prompts]
    texts = [
        reply.text
        for reply in model.replies(
            messages, seeds=range(len(prompts)), max_new_tokens=NEW_TOKENS, temperature=0, steering=steering
        )
    ]
    fluent = fluency(model, messages, texts)
    return [
        {
            "cell": f"{kind} {name}",
            "prompt": i,
            "asked": prompt.text,
            "reply": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "perplexity": one.perplexity,
            "coherent": one.coherent,
        }
        for i, (prompt, text, one) in enumerate(zip(prompts, texts, fluent, strict=True))
    ]


def readings(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """What a person found in each reply; None, and a hint, where not every reply was read."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    known = {(r["cell"], r["prompt"], r["sha256"]): r["read"] for r in map(json.loads, lines)}
    found = [known.get((row["cell"], row["prompt"], row["sha256"])) for row in rows]
    if missing := sum(one not in READ for one in found):
        print(f"{missing} replies have not been read: put them into {path}", file=sys.stderr)
        return None
    return [str(one) for one in found]


def cells(rows: Sequence[Mapping[str, Any]], read: Sequence[str] | None) -> list[Cell]:
    """One for each kind of prompts and steering."""
    names = dict.fromkeys(str(row["cell"]) for row in rows)
    return [
        _summed(name, [i for i, row in enumerate(rows) if row["cell"] == name], rows, read) for name in names
    ]


def _summed(
    name: str, places: Sequence[int], rows: Sequence[Mapping[str, Any]], read: Sequence[str] | None
) -> Cell:
    kind, steering = name.split()
    matched = [refuses(rows[i]["reply"]) for i in places]
    own = [read[i] for i in places] if read else None
    return Cell(
        prompts=kind,
        steering=steering,
        n=len(places),
        rule=rate(matched),
        read={one: rate([r == one for r in own]) for one in READ} if own else None,
        rule_wrong=sum(m != (r == "refusal") for m, r in zip(matched, own, strict=True)) if own else None,
        perplexity=float(np.median([rows[i]["perplexity"] for i in places])),
        coherent=rate([rows[i]["coherent"] for i in places]),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    default = results.FOLDER / "refusal-readings.jsonl"
    parser.add_argument("--readings", type=Path, default=default, help="what a person found in the replies")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
