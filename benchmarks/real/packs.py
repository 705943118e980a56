"""`python -m benchmarks.real.packs NAME`: makes the data of a pack again, with guardrail's own commands.

Fits, calibrates, measures, and writes the files of `plugins/guardrail-pack-NAME`. Goes on where it was
interrupted. The prompts are those of `pack_prompts`; what is measured there decides nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.real import prompt_files
from benchmarks.real.models import SMOLLM2, RealModel, fetch
from benchmarks.real.pack_card import limits, text
from benchmarks.real.pack_prompts import Parts, parts, write_labelled, write_unlabelled
from benchmarks.real.prompt_files import Prompt
from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.cli import run
from guardrail.files.yaml import read_document
from guardrail.plugins.pack import CALIBRATION, TEXT, VECTORS, Card, Number, seal
from guardrail.statistics.intervals import Estimate, rate
from guardrail.statistics.metrics import auroc
from guardrail.vectors.values import TraitVectors

ROOT = Path(__file__).parents[2]
TRAIT, RATE = "harm", 0.01
UNSAFE, SAFE = "XSTest, unsafe", "XSTest, safe look-alikes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a pack is made of. `hub`: what users call the model."""

    name: str
    model: RealModel
    hub: str

    @property
    def work(self) -> Path:
        """Where prompts, states and results lie until the pack is sealed."""
        return ROOT / "runs" / "packs" / self.name

    @property
    def folder(self) -> Path:
        """The package of the pack."""
        return ROOT / "plugins" / f"guardrail-pack-{self.name}" / f"guardrail_pack_{self.name}"

    @property
    def certified_on(self) -> str:
        """The weights, in words."""
        return f"{self.model.name}, a GGUF file of {self.hub} (sha256 {self.model.sha256[:12]}), in float32"


RECIPES = {
    "smollm2": Recipe(name="smollm2", model=SMOLLM2, hub="HuggingFaceTB/SmolLM2-135M-Instruct"),
}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    recipe, prompts = RECIPES[arguments.name], parts(arguments.data)
    model = fetch(recipe.model)
    _fit(recipe, model, prompts.fit)
    _calibrate(recipe, model, prompts)
    shutil.copyfile(recipe.work / VECTORS, recipe.folder / VECTORS)
    # whoever installs it has other versions than those it was made with, and need not be told
    replace(Calibration.load(recipe.work / CALIBRATION), certificates=()).save(recipe.folder / CALIBRATION)
    with Guard.from_pretrained(str(model), _policies(recipe), dtype=torch.float32) as guard:
        numbers = [*_calibrated(recipe), *measured(guard, prompts.measured)]
    _seal(recipe, numbers)
    print(f"wrote {recipe.folder}")
    return 0


def _fit(recipe: Recipe, model: Path, prompts: Sequence[Prompt]) -> None:
    out = recipe.work / VECTORS
    if not out.exists():
        data = write_labelled(prompts, recipe.work / "fit.jsonl")
        _command("vectors", "fit", "--model", model, "--data", data, "--trait", TRAIT, "--out", out)


def _calibrate(recipe: Recipe, model: Path, prompts: Parts) -> None:
    out = recipe.work / CALIBRATION
    if out.exists():
        return
    ordinary = write_unlabelled(prompts.ordinary, recipe.work / "ordinary.jsonl")
    alike = write_unlabelled(prompts.alike, recipe.work / "look-alikes.jsonl")
    population = "ordinary chat prompts: self-instruct, Vicuna and MT-Bench, and written ones"
    words = ["calibrate", "--model", model, "--vectors", recipe.work / VECTORS, "--out", out, "--fpr", RATE]
    words += ["--benign", ordinary, "--slice", f"look-alikes={alike}", "--worst-slice", "--conversations", 0]
    _command(*words, "--population", population)


def _command(*words: object) -> None:
    """A command of guardrail. Exits if it fails, after it has said why."""
    if code := run([str(word) for word in words]):
        sys.exit(code)


def _policies(recipe: Recipe) -> dict[str, object]:
    """Those of the pack, also where the package is not installed."""
    data = read_document(recipe.folder / "policies" / "harm.yaml").data
    files = {"vectors": recipe.folder / VECTORS, "calibration": recipe.folder / CALIBRATION}
    return {**data, **{key: str(path) for key, path in files.items()}}


def _calibrated(recipe: Recipe) -> list[Number]:
    """How often the threshold fired on harmless prompts that `calibrate` had held out."""
    made = Calibration.load(recipe.folder / CALIBRATION)
    rows = {"ordinary prompts, held out": made.evidence.achieved if made.evidence else ()}
    rows |= {f"{name}, held out": one.achieved for name, one in made.slices.items()}
    return [
        Number(what=f"fires on: {what}", value=one.rate, low=one.low, high=one.high, n=one.n)
        for what, achieved in rows.items()
        for one in achieved
        if one.name == TRAIT
    ]


def measured(guard: Guard, sets: dict[str, Sequence[Prompt]]) -> list[Number]:
    """The share of each set that the policy fires on, and how well it ranks the two sides of XSTest."""
    scores = {name: _scores(guard, prompts) for name, prompts in sets.items()}
    threshold = guard.active.plan.rules[0].conditions[0].threshold
    numbers = [
        _number(f"fires on: {name}", rate(found >= threshold), len(found)) for name, found in scores.items()
    ]
    if UNSAFE in scores and SAFE in scores:
        area = auroc(scores[UNSAFE], scores[SAFE])
        numbers.append(_number("AUROC, unsafe against safe of XSTest", area, len(scores[UNSAFE])))
    return numbers


def _scores(guard: Guard, prompts: Sequence[Prompt]) -> np.ndarray:
    checks = guard.check_many([prompt.messages for prompt in prompts])
    return np.array([check.decision.scores[0].score for check in checks])


def _number(what: str, found: Estimate, n: int) -> Number:
    return Number(what=what, value=found.value, low=found.low, high=found.high, n=n)


def _seal(recipe: Recipe, numbers: Sequence[Number]) -> None:
    vectors = TraitVectors.load(recipe.folder / VECTORS)
    card = Card(
        model=recipe.hub,
        certified_on=recipe.certified_on,
        licence=recipe.model.licence,
        fingerprint=vectors.provenance.fingerprint,
        traits=tuple(vectors),
        files={},
        numbers=tuple(numbers),
        limits=limits(numbers),
    )
    (recipe.folder / TEXT).write_text(text(card, vectors), encoding="utf-8")
    seal(recipe.folder, card)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    parser.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
