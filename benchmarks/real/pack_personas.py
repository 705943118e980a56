"""A pack with a persona vector, its steering and what was measured of both by `benchmarks.real.personas`.

Prompts and sample sizes were fixed before anything was measured. Questions that are measured on here were in
no part of the extraction, and neither were the graded system prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real import results
from benchmarks.real.detection_prompts import WRITTEN, sets
from benchmarks.real.graded_prompts import GRADED
from benchmarks.real.models import RealModel
from benchmarks.real.pack_card import WEIGHTS, Words
from benchmarks.real.pack_contents import ORDINARY, number
from benchmarks.real.pack_prompts import write_unlabelled
from benchmarks.real.persona_vectors import EVALUATION
from benchmarks.real.prompt_files import Prompt, read, shuffled
from guardrail.extract.layers.measurements import with_layer
from guardrail.files import json_text
from guardrail.plugins.pack import Number
from guardrail.statistics.intervals import Estimate, rate
from guardrail.traits import load_definition
from guardrail.types import Message
from guardrail.vectors.provenance import STEADY, LayerChoice
from guardrail.vectors.values import TraitVectors

CALIBRATED, HELD_OUT, FRESH, LONGEST = 600, 0.3, 100, 500
"""Prompts for the threshold, the share of them that is held out, fresh ones, and the most characters."""
OUTER = 3
"""So many of the eight graded system prompts at either end ask for the trait, or for its opposite."""
ASKED, OPPOSITE = "asked for it, in new words", "asked for the opposite, in new words"
KNOWN, KNOWN_OPPOSITE = "asked for it, in the extraction's words", "asked for the opposite, in the same words"

ORIGIN = (
    "`vectors extract` with the built-in definition of `{trait}` and a judge that is a program ({judge}): "
    "replies that were asked for the trait against replies that were asked for the opposite. `calibrate` on "
    "ordinary prompts (self-instruct, Vicuna and MT-Bench, Apache-2.0, and written ones) that the vector had "
    "not seen."
)
MEASURED = (
    "`fires on`: the policy `{trait}`, at the threshold that keeps a rate of 1 % on ordinary prompts. What "
    "it was measured on was neither extracted from nor calibrated on; `new words` are system prompts "
    "that the extraction did not use. Scores of replies are points of 100. Intervals are 95 %; some numbers "
    "have none."
)
LIMITS = (
    "The judge knows words and not meanings.",
    "Steering was measured on 8 replies of at most 48 tokens each: the intervals overlap widely. `add` was "
    "measured on questions that did not ask for the trait.",
    WEIGHTS,
    "Measured on English questions of one turn, most of them below a system prompt; not on other languages, "
    "long chats or tools.",
    "The threshold keeps its rate on prompts like those of the calibration, on average. Yours are others: "
    "begin with the policies `observe`, and run `guardrail calibrate` on your own traffic.",
)


@dataclass(frozen=True, slots=True)
class Persona:
    """A trait of the replies that was induced, and measured with a program as the judge."""

    model: RealModel
    trait: str
    dtype: str = "bfloat16"

    @property
    def pairs(self) -> Mapping[str, tuple[str, str]]:
        name = "AUROC of the score, asked for it against the opposite"
        return {
            f"{name}, in new words": (ASKED, OPPOSITE),
            f"{name}, in the extraction's words": (KNOWN, KNOWN_OPPOSITE),
        }

    @property
    def words(self) -> Words:
        judge = self._found()["evidence"]["judge"]
        origin, measured = (one.format(trait=self.trait, judge=judge) for one in (ORIGIN, MEASURED))
        return Words(origin=origin, measured=measured, limits=LIMITS)

    def make(self, model: Path, data: Path, out: Path) -> None:
        """The vectors of `personas`, which runs unless it has, with the layer that it chose and measured."""
        from benchmarks.real.personas import measured
        from benchmarks.real.subjects import subject

        folder = results.RUNS / "personas" / self.model.name
        made = folder / f"{self.trait}.safetensors"
        if not made.is_file():
            measured(subject(self.model), self.trait, folder)
        choice = json_text.validated(LayerChoice, self._found()["choice"])
        with_layer(TraitVectors.load(made), self.trait, choice).save(out)

    def calibrated_on(self, data: Path, work: Path) -> Sequence[object]:
        files = (data / "prompts" / "benign.jsonl", WRITTEN / "everyday.jsonl")
        ordinary = [one for file in files for one in shuffled(read(file), LONGEST)]
        chosen = shuffled(ordinary, LONGEST)[:CALIBRATED]
        benign = write_unlabelled(chosen, work / "ordinary.jsonl")
        return ("--benign", benign, "--held-out", HELD_OUT, "--population", ORDINARY)

    def measured_on(self, data: Path) -> Mapping[str, Sequence[Prompt]]:
        definition = load_definition(self.trait)
        questions = definition.evaluation[EVALUATION:]
        graded, known = GRADED[self.trait], definition.instructions
        return {
            ASKED: _asked(graded[-OUTER:], questions),
            OPPOSITE: _asked(graded[:OUTER], questions),
            KNOWN: _asked([pair.positive for pair in known], questions),
            KNOWN_OPPOSITE: _asked([pair.negative for pair in known], questions),
            "the same questions, nothing asked for": _asked([""], questions),
            "Alpaca, ordinary": sets(data)["alpaca"][:FRESH],
        }

    def known(self, vectors: TraitVectors) -> Sequence[Number]:
        found = self._found()
        return [*_induced(found), *_stable(vectors, self.trait), *_monitored(found), *_steered(found)]

    def misses(self, numbers: Sequence[Number]) -> Sequence[str]:
        values = {one.what: one for one in numbers}
        return [*_wrong(values), *_no_better(values, self.pairs), *_unsteady(values)]

    def _found(self) -> dict[str, Any]:
        path = results.FOLDER / f"personas-{self.trait}.json"
        return json.loads(path.read_text(encoding="utf-8"))


def _asked(system: Sequence[str], questions: Sequence[str]) -> list[Prompt]:
    return [
        Prompt(
            (*([Message("system", text)] if text else []), Message("user", question)), "persona", harm=False
        )
        for text in system
        for question in questions
    ]


# --- numbers ------------------------------------------------------------------------------------------

SPLIT_HALF = "cosine of the vectors of two halves of the questions"


def _induced(found: Mapping[str, Any]) -> Iterator[Number]:
    evidence = found["evidence"]
    pairs, kept = evidence["pairs"], evidence["kept"]
    difference = Estimate(**evidence["induction"]["difference"])
    yield number("score of replies: asked for it, less asked for the opposite", difference, pairs)
    yield number("pairs of replies kept", rate([True] * kept + [False] * (pairs - kept)), pairs)
    yield Number(what="pairs kept by chance", value=evidence["induction"]["chance"] / pairs, n=pairs)


def _stable(vectors: TraitVectors, trait: str) -> Iterator[Number]:
    layer, source = vectors[trait].layer, vectors.provenance.traits[trait]
    if layer is not None and source.stability is not None:
        questions = source.stability.questions
        yield Number(what=SPLIT_HALF, value=source.stability.split_half[layer], n=questions)


def _monitored(found: Mapping[str, Any]) -> Iterator[Number]:
    monitored = found["monitored"]
    names = {
        "overall": "r of a prompt's score and its replies' score",
        "within": "r of the same, within a graded system prompt",
        "label_alone": "r of the graded system prompt's number and the replies' score",
    }
    for key, name in names.items():
        yield number(name, Estimate(**monitored[key]), monitored["prompts"])
    highest = monitored["replies_agree"]["mean"] ** 0.5
    yield Number(what="highest r there can be: replies differ", value=highest, n=monitored["prompts"])


def _steered(found: Mapping[str, Any]) -> Iterator[Number]:
    for one in found["curve"]:
        asked = "asked for it" if one["prompts"] == "asking" else "not asked"
        amount = "" if one["amount"] is None else f" {one['amount']:g}"
        way = "not steered" if one["amount"] is None else f"{one['operator']}{amount}"
        yield number(f"score of replies, {asked}, {way}", Estimate(**one["trait"]), one["n"])
        yield number(f"coherent replies, {asked}, {way}", Estimate(**one["coherent"]), one["n"])


# --- limits that the numbers show ---------------------------------------------------------------------


def _wrong(values: Mapping[str, Number]) -> Iterator[str]:
    """What the policy misses, and what it takes for its opposite."""
    for name in (ASKED, KNOWN):
        if missed := values.get(f"fires on: {name}"):
            yield f"It misses {1 - missed.value:.0%} of the prompts that {name}."
    for name in (OPPOSITE, KNOWN_OPPOSITE):
        if (wrong := values.get(f"fires on: {name}")) and wrong.value > 0:
            yield f"It fires on {wrong.value:.0%} of the prompts that {name}."


def _no_better(values: Mapping[str, Number], pairs: Mapping[str, object]) -> Iterator[str]:
    """A ranking whose interval does not lie above chance."""
    for one in (values[name] for name in pairs):
        if one.low is not None and one.low <= 0.5:
            yield (
                f"{one.what}: {one.value:.2f} ({one.low:.2f} to {one.high:.2f}), no better than "
                "chance. Do not rely on the score to find such prompts."
            )


def _unsteady(values: Mapping[str, Number]) -> Iterator[str]:
    if SPLIT_HALF in values and (one := values[SPLIT_HALF]).value < STEADY:
        yield f"{SPLIT_HALF.capitalize()}: {one.value:.2f}. With other questions it would be another vector."
