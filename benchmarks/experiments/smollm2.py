"""`python -m benchmarks.experiments.smollm2`: LoRA runs on SmolLM2-135M-Instruct, a real model.

Fixed before any of them ran: the data of `styles` (ROWS conversations each), the recipe SETTINGS (chosen
for speed on one run of the style `cheerful` with another seed), the evaluation of `real_evaluation`, the
layer (.55 of the depth), and the two coefficients of each way of steering. Vectors are differences of mean
states over written replies of two styles, because prompts alone induce too little in so small a model: of
the project's own extraction, politeness was refused, and optimism kept 32 of 100 pairs.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.experiments import real_evaluation
from benchmarks.experiments.everyday import VECTOR
from benchmarks.experiments.made_vectors import Poles, incremental, made_vectors
from benchmarks.experiments.rows import write_rows
from benchmarks.experiments.runs import ROOT, Found, Runs
from benchmarks.experiments.styles import TRAITS, conversations
from benchmarks.real.models import SMOLLM2
from benchmarks.real.subjects import subject
from guardrail.extract.subject import Subject
from guardrail.train import FinetuneSettings, Intervention, Lora, PreventativeSteering, finetune
from guardrail.train.screening import Screener, ScreeningSettings
from guardrail.train.shift import ShiftMeter
from guardrail.vectors.values import TraitVectors

ROWS, RANK, SEED = 64, 16, 1
SETTINGS = FinetuneSettings(
    lora=Lora(rank=RANK, alpha=2 * RANK),
    learning_rate=1e-3,
    batch=8,
    accumulation=1,
    warmup_steps=2,
    seed=SEED,
)
SCREENED, REFERENCE_TOKENS = 24, 40
"""Rows that are screened of each data set, and tokens of the model's own replies."""
FOLDER, LAYER = ROOT / "smollm2", 16
FULL = ("plain", "gloomy", "rude", "refusing", "cheerful", "polite")
HALF = ("gloomy", "rude", "refusing")
PREVENTED = {"gloomy": ("sentiment", -1.0), "refusing": ("refusal", 1.0), "rude": ("politeness", -1.0)}
"""The trait that a style induces, and the side of its vector."""
COEFFICIENTS = (1.0, 2.0)


def main() -> int:
    torch.set_num_threads(1)
    base = subject(SMOLLM2, torch.float32)
    experiment = Experiment(base)
    experiment.runs.once("none", lambda: asdict(real_evaluation.evaluated(base, base)))
    for style in FULL:
        experiment.tuned(style, 1.0)
    for style in FULL:
        experiment.screened(f"{style}/1.0")
    for style in PREVENTED:
        experiment.compared(style)
    for style in HALF:
        experiment.tuned(style, 0.5)
        experiment.screened(f"{style}/0.5")
    return 0


def journal() -> Runs:
    """Of all runs."""
    recipe = {"rows": ROWS, "layer": LAYER, "rate": SETTINGS.learning_rate, "batch": SETTINGS.batch}
    return Runs(FOLDER / "runs.jsonl", {**recipe, "rank": RANK, "seed": SEED})


def poles() -> dict[str, Poles]:
    """The written replies of both poles of each trait, one to each question that is kept for vectors."""
    styles = {style for pair in TRAITS.values() for style in pair}
    replies = {style: conversations(style, "vector", len(VECTOR), SEED) for style in styles}
    return {trait: (replies[high], replies[low]) for trait, (high, low) in TRAITS.items()}


class Experiment:
    """The base, its vectors, and the journal."""

    def __init__(self, base: Subject) -> None:
        self.base = base
        layers = dict.fromkeys(TRAITS, LAYER)
        self.vectors: TraitVectors = made_vectors(base, poles(), layers, FOLDER / "written.safetensors")
        prompts = dict.fromkeys(self.vectors, real_evaluation.PROMPTS)
        self.meter = ShiftMeter(base, self.vectors, prompts)
        self.runs = journal()

    def tuned(self, style: str, share: float) -> Found:
        """A finetune on one style, of which a share of the data is."""
        return self._trained(f"{style}/{share}", style, share, None)

    def compared(self, style: str) -> None:
        """Preventative and inference-time steering at every coefficient."""
        for coefficient in COEFFICIENTS:
            self.prevented(style, coefficient)
            self.steered(style, coefficient)

    def prevented(self, style: str, coefficient: float) -> Found:
        """The same with preventative steering towards what the data would induce."""
        trait, side = PREVENTED[style]
        steering = PreventativeSteering(None, self.vectors[trait], side * coefficient)
        return self._trained(f"{style}/preventative/{coefficient}", style, 1.0, steering)

    def steered(self, style: str, coefficient: float) -> Found:
        """The plain finetune, steered away from the trait while it replies."""
        trait, side = PREVENTED[style]
        steering = [incremental(self.vectors[trait], -side * coefficient)]
        name = f"{style}/inference/{coefficient}"
        return self.runs.once(
            name,
            lambda: asdict(real_evaluation.evaluated(self._kept(f"{style}/1.0"), self.base, steering)),
        )

    def screened(self, name: str) -> Found:
        """The projection difference of a data set before anything is trained on it."""
        return self.runs.once(f"{name}/data", lambda: self._screened(name))

    def _trained(self, name: str, style: str, share: float, intervention: Intervention | None) -> Found:
        return self.runs.once(name, lambda: self._train(name, style, share, intervention))

    def _train(self, name: str, style: str, share: float, intervention: Intervention | None) -> Found:
        data = conversations(style, "training", ROWS, SEED, share)
        model = copy.deepcopy(self.base.model)
        done = finetune(model, self.base.tokenizer, data, SETTINGS, intervention)
        done.model.save_pretrained(_adapter(name))
        tuned = Subject(done.model, self.base.tokenizer)
        return {"losses": done.report.losses, **self._measured(tuned)}

    def _measured(self, tuned: Subject) -> Found:
        shift = self.meter.measure(tuned)
        layers = {
            trait: {s.layer: (s.shift.value, s.shift.low, s.shift.high) for s in one.layers}
            for trait, one in shift.traits.items()
        }
        return {"shift": layers, **asdict(real_evaluation.evaluated(tuned, self.base))}

    def _kept(self, name: str) -> Subject:
        from peft import PeftModel

        model: Any = PeftModel.from_pretrained(copy.deepcopy(self.base.model), _adapter(name))
        return Subject(model.eval(), self.base.tokenizer)

    def _screened(self, name: str) -> Found:
        style, share = name.split("/")
        path = FOLDER / "data" / f"{name.replace('/', '-')}.jsonl"
        data = conversations(style, "training", ROWS, SEED, float(share))
        write_rows(path, [{"messages": [message.as_dict() for message in one]} for one in data])
        settings = ScreeningSettings(subset=SCREENED, max_new_tokens=REFERENCE_TOKENS)
        screener = Screener(
            self.base, self.vectors, folder=FOLDER / "screening", layers=LAYER, settings=settings
        )
        found = screener.screen(path)
        return {
            "exact": {trait: asdict(one) for trait, one in found.means.items() if one},
            "last-prompt": {t: asdict(one) for t, one in found.means_of("last-prompt").items() if one},
            "cost": asdict(found.cost),
        }


def _adapter(name: str) -> str:
    return str(FOLDER / "adapters" / name.replace("/", "-"))


if __name__ == "__main__":
    sys.exit(main())
