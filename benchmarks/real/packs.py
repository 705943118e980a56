"""`python -m benchmarks.real.packs NAME`: makes the data of a pack again, with guardrail's own commands.

Makes vectors, calibrates, measures, and writes the files of `plugins/guardrail-pack-NAME`. Goes on where it
was interrupted. What is measured decides nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.real import prompt_files
from benchmarks.real.models import QWEN_15B, SMOLLM2, RealModel, fetch
from benchmarks.real.pack_card import text
from benchmarks.real.pack_contents import Contents, command, number
from benchmarks.real.pack_harm import Harm
from benchmarks.real.pack_personas import Persona
from benchmarks.real.prompt_files import Prompt
from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.files.yaml import read_document
from guardrail.plugins.pack import CALIBRATION, TEXT, VECTORS, Card, Number, seal
from guardrail.statistics.intervals import Numbers, numbers, rate
from guardrail.statistics.metrics import auroc
from guardrail.vectors.values import TraitVectors

ROOT = Path(__file__).parents[2]
RATE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a pack is made of. `hub`: what users call the model."""

    name: str
    model: RealModel
    hub: str
    contents: Contents

    @property
    def work(self) -> Path:
        """Where prompts, states and results lie until the pack is sealed."""
        return ROOT / "runs" / "packs" / self.name

    @property
    def folder(self) -> Path:
        """The package of the pack."""
        name = f"guardrail-pack-{self.name}"
        return ROOT / "plugins" / name / re.sub(r"\W", "_", name)

    @property
    def certified_on(self) -> str:
        """The weights, in words."""
        file = f"{self.model.name}, a GGUF file of {self.hub} (sha256 {self.model.sha256[:12]})"
        return f"{file}, in {self.contents.dtype}"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="smollm2", model=SMOLLM2, hub="HuggingFaceTB/SmolLM2-135M-Instruct", contents=Harm()),
        Recipe(
            name="qwen-coder-1.5b",
            model=QWEN_15B,
            hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
            contents=Persona(QWEN_15B, "optimism"),
        ),
    )
}


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    recipe, data = RECIPES[arguments.name], arguments.data
    model = fetch(recipe.model)
    if not (vectors := recipe.work / VECTORS).exists():
        vectors.parent.mkdir(parents=True, exist_ok=True)
        recipe.contents.make(model, data, vectors)
    _calibrate(recipe, model, data)
    shutil.copyfile(vectors, recipe.folder / VECTORS)
    # whoever installs it has other versions than those it was made with, and need not be told
    replace(Calibration.load(recipe.work / CALIBRATION), certificates=()).save(recipe.folder / CALIBRATION)
    dtype = getattr(torch, recipe.contents.dtype)
    with Guard.from_pretrained(str(model), _policies(recipe), dtype=dtype) as guard:
        found = measured(guard, recipe.contents.measured_on(data), recipe.contents.pairs)
    card = sealed(recipe, [*_calibrated(recipe), *found])
    print(f"wrote {recipe.folder}: {len(card.numbers)} numbers")
    return 0


def _calibrate(recipe: Recipe, model: Path, data: Path) -> None:
    out = recipe.work / CALIBRATION
    if out.exists():
        return
    words = ["calibrate", "--model", model, "--dtype", recipe.contents.dtype]
    words += ["--vectors", recipe.work / VECTORS, "--out", out, "--fpr", RATE, "--conversations", 0]
    command(*words, *recipe.contents.calibrated_on(data, recipe.work))


def _policies(recipe: Recipe) -> dict[str, object]:
    """Those of the pack, also where the package is not installed."""
    data = read_document(recipe.folder / "policies" / f"{recipe.contents.trait}.yaml").data
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
        if one.name == recipe.contents.trait
    ]


def measured(
    guard: Guard, sets: Mapping[str, Sequence[Prompt]], pairs: Mapping[str, tuple[str, str]]
) -> list[Number]:
    """The share of each set that the policy fires on, and how well its score ranks pairs of sets."""
    scores = {name: _scores(guard, prompts) for name, prompts in sets.items()}
    threshold = guard.active.plan.rules[0].conditions[0].threshold
    rates = [
        number(f"fires on: {name}", rate(found >= threshold), len(found)) for name, found in scores.items()
    ]
    areas = [
        number(name, auroc(scores[high], scores[low]), len(scores[high]))
        for name, (high, low) in pairs.items()
    ]
    return [*rates, *areas]


def _scores(guard: Guard, prompts: Sequence[Prompt]) -> Numbers:
    checks = guard.check_many([prompt.messages for prompt in prompts])
    return numbers([check.decision.scores[0].score for check in checks])


def sealed(recipe: Recipe, numbers: Sequence[Number]) -> Card:
    """The card of these numbers and those known from elsewhere, written as text and as `pack.json`."""
    vectors, contents = TraitVectors.load(recipe.folder / VECTORS), recipe.contents
    every = [*numbers, *contents.known(vectors)]
    card = Card(
        model=recipe.hub,
        certified_on=recipe.certified_on,
        licence=recipe.model.licence,
        fingerprint=vectors.provenance.fingerprint,
        traits=tuple(vectors),
        files={},
        numbers=tuple(every),
        limits=(*contents.misses(every), *contents.words.limits),
    )
    (recipe.folder / TEXT).write_text(text(card, vectors, contents.words), encoding="utf-8")
    seal(recipe.folder, card)
    return card


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    parser.add_argument("name", choices=RECIPES, metavar="NAME", help=", ".join(RECIPES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
