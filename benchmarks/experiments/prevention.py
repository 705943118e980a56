"""`python -m benchmarks.experiments.prevention`: keeping a trait out of a finetune of the demo model, six
ways.

After `finetunes`. Fixed before any of it ran: the strong data of TRAITS, the recipe of the plain finetunes,
and every number below. Preventative steering, inference-time steering and the regulariser take four
coefficients; concept ablation (CAFT), preventative prompting and inoculation have none. Inference-time
steering is on the plain finetune, at the last prompt position and later; everything else is evaluated
unsteered. Goal: at least 80 % of the induced trait removed, with capability within 2 points of the plain
finetune. Benign data is trained on with preventative steering too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from random import Random
from typing import Any

import torch

from benchmarks.experiments import evaluation, finetunes
from benchmarks.experiments.commands import asked
from benchmarks.experiments.evaluation import by_writing
from benchmarks.experiments.finetunes import FOLDER, RECIPE, copied, kept, samples
from benchmarks.experiments.made_vectors import incremental
from benchmarks.experiments.runs import Found, Runs
from benchmarks.experiments.training import finetune
from guardrail.demo import VECTORS, phrasings
from guardrail.demo.making.runner import Runner
from guardrail.train import (
    ConceptAblation,
    InoculationPrompting,
    Intervention,
    PreventativePrompting,
    PreventativeSteering,
    ProjectionRegulariser,
)
from guardrail.vectors.values import TraitVector, TraitVectors

TRAITS = ("evil", "sycophancy", "hallucination")
PREVENTATIVE = (1.0, 1.5, 2.0, 3.0)
INFERENCE = (0.5, 1.0, 1.5, 2.0)
WEIGHTS = (1e-4, 1e-3, 1e-2, 1e-1)
PROMPTS = 5
"""Different system prompts of preventative prompting."""
Made = Callable[[Any], Intervention]
"""Makes an intervention on a model."""


def main() -> int:
    torch.set_num_threads(1)
    experiment = Experiment()
    for seed, part in asked(__doc__, (*TRAITS, "benign")):
        if part == "benign":
            experiment.benign(TRAITS[0], seed)
        else:
            experiment.trait(part, seed)
    return 0


def journal() -> Runs:
    """Of the interventions."""
    recipe = {"training": asdict(RECIPE), "samples": finetunes.SAMPLES, "prompts": evaluation.PROMPTS}
    return Runs(FOLDER / "prevention.jsonl", recipe)


class Experiment:
    """The base, the vectors, and the journal. Runs are called `trait/way/coefficient/seed`."""

    def __init__(self) -> None:
        self.base, self.vectors, self.runs = Runner(), TraitVectors.load(VECTORS), journal()

    def trait(self, trait: str, seed: int) -> None:
        """The plain finetune, and every way of keeping the trait out of it."""
        plain = f"{trait}/strong/{seed}"
        self._evaluated(f"{trait}/plain/0/{seed}", plain)
        for coefficient in PREVENTATIVE:
            self._preventative(f"{trait}/preventative/{coefficient}/{seed}", trait, coefficient, plain)
        for coefficient in INFERENCE:
            self._evaluated(f"{trait}/inference/{coefficient}/{seed}", plain, trait, coefficient)
        for way, intervention in others(self.vectors[trait]):
            self._trained(f"{trait}/{way}/{seed}", plain, intervention)

    def benign(self, trait: str, seed: int) -> None:
        """Data that induces nothing, plain and with preventative steering."""
        plain = f"benign/none/{seed}"
        self._evaluated(f"benign/plain/0/{seed}", plain)
        for coefficient in PREVENTATIVE:
            self._preventative(f"benign/preventative/{coefficient}/{seed}", trait, coefficient, plain)

    def _preventative(self, name: str, trait: str, coefficient: float, data: str) -> None:
        vector = self.vectors[trait]
        self._trained(name, data, lambda model: PreventativeSteering(model, vector, coefficient))

    def _evaluated(self, name: str, model: str, trait: str = "", coefficient: float = 0.0) -> None:
        steering = [incremental(self.vectors[trait], -coefficient)] if coefficient else []
        self.runs.once(
            name, lambda: asdict(evaluation.evaluated(kept(self.base, model), steering, by_writing))
        )

    def _trained(self, name: str, data: str, made: Made) -> None:
        self.runs.once(name, lambda: self._train(data, made))

    def _train(self, data: str, made: Made) -> Found:
        tuned, seed = copied(self.base), int(data.rpartition("/")[2])
        intervention = made(tuned.model)
        conversations = intervention.prepared([one.conversation for one in samples(data)], seed)
        with intervention:
            loss = finetune(tuned.subject, conversations, RECIPE, seed)
        return {
            "loss": loss,
            "applied": asdict(intervention.applied),
            **asdict(evaluation.evaluated(tuned, (), by_writing)),
        }


def others(vector: TraitVector) -> Iterator[tuple[str, Made]]:
    """What preventative steering is compared with."""
    rng = Random(f"prompts/{vector.trait}")
    asking = [phrasings.pole_prompt(rng, "train", vector.trait, "strong") for _ in range(PROMPTS)]
    yield "ablation/0", lambda model: ConceptAblation(model, vector)
    yield "prompting/0", lambda _: PreventativePrompting(asking, vector.trait)
    yield "inoculation/0", lambda _: InoculationPrompting(asking[0], vector.trait)
    for weight in WEIGHTS:
        yield f"regulariser/{weight}", partial(_regulariser, vector=vector, weight=weight)


def _regulariser(model: Any, vector: TraitVector, weight: float) -> Intervention:
    return ProjectionRegulariser(model, vector, weight)


if __name__ == "__main__":
    sys.exit(main())
