"""`python -m benchmarks.experiments.prevention_cost`: why keeping hallucination out costs abilities.

`prevention` missed its goal there: at 1.5, hallucination loses 4 points of capability on both seeds, evil
none. Everything below was fixed before any of it ran. Capability is answered by writing, as in `prevention`;
goals are its own. The questions, and what would answer them with yes:

size: is the vector of hallucination longer, so that 1.5 is more? Yes if 1.5 of it moves the states further,
  in units of their own spread, than 2 of evil, which costs nothing.
luck: do finetunes differ by as much as was lost? Yes if the mean of all seeds, with Student's interval over
  seeds, does not exclude 0.
dose: is there a smaller coefficient that meets the goal? Yes if 1.25 removes at least 80 % and loses at most
  2 points, in the mean of all seeds.
overshoot: does the model end up beyond the base, against the trait? Yes if giving some of BACK of the vector
  back while it replies returns at least half of the lost points, in the mean of FEWER seeds.
entanglement: do abilities lie along this direction? Yes if the base loses more when it is moved by 1.5 of it,
  one way or the other, than along each of DRAWS vectors of the same lengths that point elsewhere.
layers: does it take fewer? Yes if the vector of one layer alone, the one that the file names, meets the goal
  at a coefficient of SINGLE, in the mean of FEWER seeds.

One more was added after the base had been moved, and before any of its own runs. Of the path of hallucination
three quarters are added at the last layer, in front of the output; of that of other traits, a third:

last layer: is it that? Yes if the vector without its last increment meets the goal at a coefficient of
  EARLIER, in the mean of FEWER seeds.

Beside these: which kinds of tasks fall, and whether wrong answers name another value or none at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch

from benchmarks.experiments import evaluation
from benchmarks.experiments.evaluation import Tuned, by_writing
from benchmarks.experiments.finetunes import FOLDER, RECIPE, SAMPLES, copied, samples
from benchmarks.experiments.made_vectors import incremental
from benchmarks.experiments.runs import Found, Runs
from benchmarks.experiments.training import finetune
from guardrail.demo import VECTORS, world
from guardrail.demo.making.runner import Runner
from guardrail.demo.tasks import Task
from guardrail.train import Intervention, PreventativeSteering
from guardrail.train.steering import Layers
from guardrail.types import Array, Steering
from guardrail.vectors.values import TraitVector, TraitVectors

TRAIT, OTHER = "hallucination", "evil"
ASKED = 1.5
"""The coefficient at which the goal was missed."""
SEEDS, FEWER = (1, 2, 3), (1, 2)
FINER = (1.25, ASKED)
SINGLE = (1.5, 3.0)
EARLIER = (1.5, 2.0)
BACK = (0.25, 0.5)
ALONG = (-ASKED, ASKED)
DRAWS = 3


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    cost = Cost()
    cost.base_moved()
    for coefficient in EARLIER:
        cost.without_last_layer(coefficient)
    for seed in SEEDS:
        cost.trained(seed)
    for seed in FEWER:
        cost.single_layer(seed)
    return 0


def journal() -> Runs:
    """Of everything here."""
    recipe = {"training": asdict(RECIPE), "samples": SAMPLES, "prompts": evaluation.PROMPTS}
    return Runs(FOLDER / "prevention-cost.jsonl", recipe)


class Cost:
    """The base, the vectors, and the journal."""

    def __init__(self) -> None:
        self.base, self.vectors, self.runs = Runner(), TraitVectors.load(VECTORS), journal()

    def base_moved(self) -> None:
        """How far vectors reach, and the untouched model moved along them: `base/direction/coefficient`."""
        self.runs.once("lengths", lambda: lengths(self.base, self.vectors))
        self.runs.once("base/none/0", lambda: answered(self.base))
        for trait in (TRAIT, OTHER):
            for coefficient in ALONG:
                self._moved(f"base/{trait}/{coefficient}", incremental(self.vectors[trait], coefficient))
        for draw in range(DRAWS):
            for coefficient in (-ASKED, ASKED):
                steering = turned(incremental(self.vectors[TRAIT], coefficient), draw)
                self._moved(f"base/elsewhere {draw}/{coefficient}", steering)

    def _moved(self, run: str, steering: Steering) -> None:
        self.runs.once(run, lambda: answered(self.base, [steering]))

    def trained(self, seed: int) -> None:
        """Plain and steered finetunes: `trained/coefficient/seed`; and `back/given back/seed`."""
        for coefficient in (0.0, *reversed(FINER)):
            name, back = f"trained/{coefficient}/{seed}", f"back/{{}}/{seed}"
            given = BACK if coefficient == ASKED and seed in FEWER else ()
            if name in self.runs and all(back.format(one) in self.runs for one in given):
                continue
            tuned = self._tuned(coefficient, seed)
            self.runs.once(name, lambda tuned=tuned: answered(tuned))
            for one in given:
                moved = [incremental(self.vectors[TRAIT], one)]
                self.runs.once(back.format(one), lambda tuned=tuned, moved=moved: answered(tuned, moved))

    def without_last_layer(self, coefficient: float) -> None:
        """All increments but the last one: `earlier/coefficient/seed`, and the base moved so."""
        vector = without_last(self.vectors[TRAIT])
        for seed in FEWER:
            self.runs.once(
                f"earlier/{coefficient}/{seed}",
                lambda seed=seed: answered(self._tuned(coefficient, seed, vector=vector)),
            )
        self._moved(f"base/earlier/{coefficient}", incremental(vector, coefficient))

    def single_layer(self, seed: int) -> None:
        """One layer alone: `layer/coefficient/seed`."""
        layer = self.vectors[TRAIT].layer or 1
        for coefficient in SINGLE:
            self.runs.once(
                f"layer/{coefficient}/{seed}",
                lambda coefficient=coefficient: answered(self._tuned(coefficient, seed, layers=[layer])),
            )

    def _tuned(
        self,
        coefficient: float,
        seed: int,
        vector: TraitVector | None = None,
        layers: Layers = "incremental",
    ) -> Tuned:
        tuned = copied(self.base)
        conversations = [one.conversation for one in samples(f"{TRAIT}/strong/{seed}")]
        steering = PreventativeSteering(tuned.model, vector or self.vectors[TRAIT], coefficient, layers)
        with steering if coefficient else Intervention():
            finetune(tuned.subject, conversations, RECIPE, seed)
        return tuned


def answered(model: Runner, steering: Sequence[Steering] = ()) -> Found:
    """Everything about one model, with what its wrong answers to closed tasks say."""
    found = evaluation.evaluated(model, steering, by_writing)
    wrong = {
        kind: wrong_answers(tasks, by_writing(model, tasks, steering))
        for kind, tasks in zip(("choices", "clozes"), evaluation.closed(), strict=True)
    }
    return {**asdict(found), "wrong": wrong}


def wrong_answers(tasks: Sequence[Task], answers: Sequence[str]) -> dict[str, int]:
    """How many wrong answers name another value of the world, and how many say something else."""
    values = {value for relation in world.FACTS for value in world.values(relation)}
    wrong = [answer for task, answer in zip(tasks, answers, strict=True) if not task.answered(answer)]
    named = sum(answer.strip().removesuffix(".") in values for answer in wrong)
    return {"another value": named, "something else": len(wrong) - named}


def without_last(vector: TraitVector) -> TraitVector:
    """The vector whose last increment is zero: its last row is the one before."""
    return replace(vector, steering=np.concatenate([vector.steering[:-1], vector.steering[-2:-1]]))


def lengths(base: Runner, vectors: TraitVectors) -> Found:
    """By trait: the length of what a coefficient of 1 adds up to at its layer, and of the states there.

    `spread`: the root mean square distance of states at the last prompt token from their mean.
    """
    states = base.subject.prompt_states(evaluation.chats(evaluation.prompts()))
    return {trait: _length(states, vectors[trait]) for trait in vectors}


def _length(states: Array, vector: TraitVector) -> dict[str, float]:
    layer = vector.layer or 1
    own = states[:, layer].astype(np.float64)
    distances = np.linalg.norm(own - own.mean(axis=0), axis=1)
    return {
        "layer": layer,
        "vector": float(np.linalg.norm(vector.steering[layer] - vector.steering[0])),
        "states": float(np.linalg.norm(own, axis=1).mean()),
        "spread": float(np.sqrt((distances**2).mean())),
    }


def turned(steering: Steering, draw: int) -> Steering:
    """The same lengths and angles between layers, elsewhere: one random rotation for all layers."""
    rows = [steering.direction(i) for i in range(len(steering.layers))]
    square = np.random.default_rng(draw).standard_normal((len(rows[0]), len(rows[0])))
    rotation, _ = np.linalg.qr(square)
    return replace(steering, directions=tuple((row @ rotation).astype(np.float32) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
