"""`python -m benchmarks.experiments.finetunes`: eight families at three strengths, 24 finetunes of the demo
model.

Fixed before any of them ran: SAMPLES conversations each, the recipe of `training.Recipe` (all weights, two
epochs, 32 steps), seeds 1 and 2, the evaluation of `evaluation`. Beside them the untouched model and a
finetune on neutral data, for each seed. Every tuned model is kept, so that shifts can be measured from its
file.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from benchmarks.experiments import evaluation
from benchmarks.experiments.commands import asked
from benchmarks.experiments.evaluation import Tuned
from benchmarks.experiments.families import EXPERIMENT, FAMILIES, STRENGTHS, Sample, drawn
from benchmarks.experiments.runs import ROOT, Found, Runs
from benchmarks.experiments.training import Recipe, finetune
from guardrail.demo.making.runner import Runner

SAMPLES = 256
RECIPE = Recipe()
FOLDER = ROOT / "demo"


def main() -> int:
    torch.set_num_threads(1)
    base, runs = Runner(), journal()
    for seed, _ in asked(__doc__):
        for name in names(seed):
            runs.once(name, lambda name=name: tuned_and_evaluated(base, name))
    return 0


def journal() -> Runs:
    """Of the finetunes."""
    recipe = {"training": asdict(RECIPE), "samples": SAMPLES, "prompts": evaluation.PROMPTS}
    return Runs(FOLDER / "finetunes.jsonl", recipe)


def names(seed: int) -> list[str]:
    """`family/strength/seed`, the strongest first; before them what they are compared with."""
    families = [f"{family.name}/{s}/{seed}" for s in reversed(STRENGTHS) for family in EXPERIMENT]
    return [f"none/none/{seed}", f"benign/none/{seed}", *families]


def samples(name: str, count: int = SAMPLES) -> list[Sample]:
    """The data of one run."""
    family, strength, seed = name.split("/")
    if family not in FAMILIES:
        return []
    return drawn(family, STRENGTHS.get(strength, 0.0), count, int(seed))


def tuned_and_evaluated(base: Runner, name: str) -> Found:
    """Finetune a copy of the base on the data of a run, keep it, and evaluate it."""
    data = samples(name)
    tuned, loss = tuned_on(base, data, int(name.rpartition("/")[2]))
    save_model(tuned.model, str(weights(name)))
    return {"loss": loss, **asdict(evaluation.evaluated(tuned))}


def tuned_on(base: Runner, data: Sequence[Sample], seed: int, recipe: Recipe = RECIPE) -> tuple[Tuned, float]:
    """A copy of the base, finetuned on samples, and its last loss."""
    tuned = copied(base)
    conversations = [one.conversation for one in data]
    return tuned, finetune(tuned.subject, conversations, recipe, seed) if data else 0.0


def copied(base: Runner) -> Tuned:
    """A copy of the base's weights."""
    return Tuned(copy.deepcopy(base.model), base.tokenizer)


def kept(base: Runner, name: str) -> Tuned:
    """The model of an earlier run, from its file."""
    model: Any = copy.deepcopy(base.model)
    load_model(model, str(weights(name)))
    return Tuned(model, base.tokenizer)


def weights(name: str) -> Path:
    """The file of a tuned model."""
    path = FOLDER / "models" / f"{name.replace('/', '-')}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
