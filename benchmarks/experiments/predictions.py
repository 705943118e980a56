"""`python -m benchmarks.experiments.predictions`: what shifts and data said of the 24 finetunes.

After `finetunes`. Shifts are read from the tuned models' files, at the last token of READ neutral test
prompts. Projection differences are those of the data before any training: of SCREENED random rows of each
data set, exact and by the last prompt token. Layers are those that the vector file chose. The shipped vectors
were made orthogonal, so that they share nothing; raw ones are plain differences of means, of replies that the
grammar writes, and are read at the same layers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch

from benchmarks.experiments import evaluation, finetunes
from benchmarks.experiments.commands import asked
from benchmarks.experiments.families import STRENGTHS, character, drawn
from benchmarks.experiments.finetunes import FOLDER, kept, names, samples
from benchmarks.experiments.made_vectors import made_vectors
from benchmarks.experiments.rows import write_rows
from benchmarks.experiments.runs import Found, Runs
from benchmarks.experiments.training import Conversation
from guardrail.demo import VECTORS
from guardrail.demo.making.runner import Runner
from guardrail.statistics.intervals import Estimate
from guardrail.train.screening import Screener, ScreeningSettings
from guardrail.train.screening.meter import Form
from guardrail.train.shift import ShiftMeter
from guardrail.vectors.values import TraitVectors

READ, SCREENED = 48, 128
WRITTEN, WRITTEN_SEED = 100, 7000
"""Replies with and without each trait that raw vectors are made of."""
SUFFIXES = {"shipped": "", "raw": "-raw"}
SCREENING = ScreeningSettings(subset=SCREENED, max_new_tokens=96)
COSTED = "evil/strong/1"
COSTS: tuple[tuple[Form, int], ...] = (
    ("exact", SCREENED),
    ("last-prompt", SCREENED),
    ("exact", 16),
    ("last-prompt", 16),
)
"""Forms, and the number of rows that they are applied to."""


def main() -> int:
    torch.set_num_threads(1)
    base, done = Runner(), finetunes.journal()
    wanted = [name for seed, _ in asked(__doc__) for name in names(seed)[1:] if name in done]
    shipped = TraitVectors.load(VECTORS)
    for kind, vectors in (("shipped", shipped), ("raw", raw(base, shipped))):
        predicted(base, vectors, kind, wanted)
    for form, rows in COSTS:
        costs().once(f"{form}, {rows} rows", lambda f=form, r=rows: cost(base, shipped, f, r))
    return 0


def raw(base: Runner, shipped: TraitVectors) -> TraitVectors:
    """Differences of replies with and without each trait, on other prompts than the runs'."""
    plain = [one.conversation for one in drawn("benign", 0.0, WRITTEN, WRITTEN_SEED)]
    layers = {trait: vector.layer or 1 for trait, vector in shipped.items()}
    poles = {trait: (_replies(trait), plain) for trait in shipped}
    return made_vectors(base.subject, poles, layers, FOLDER / "raw.safetensors")


def _replies(trait: str) -> list[Conversation]:
    asking, rng = Random(f"prompts/{WRITTEN_SEED}"), Random(f"raw/{trait}")
    return [character((trait,), asking, rng, STRENGTHS["strong"]).conversation for _ in range(WRITTEN)]


def predicted(base: Runner, vectors: TraitVectors, kind: str, wanted: Sequence[str]) -> None:
    """The shifts of these runs and the projection differences of their data, along one set of vectors."""
    prompts = evaluation.chats(evaluation.prompts()[:READ])
    meter = ShiftMeter(base.subject, vectors, dict.fromkeys(vectors, prompts))
    screener = Screener(base.subject, vectors, folder=FOLDER / "screening", settings=SCREENING)
    for name in wanted:
        shifts(kind).once(name, lambda name=name: shifted(meter, kept(base, name)))
        screens(kind).once(name, lambda name=name: screened(screener, name))


def shifts(kind: str) -> Runs:
    """The journal of the shifts along the vectors of one kind."""
    return Runs(FOLDER / f"shifts{SUFFIXES[kind]}.jsonl", {"prompts": READ})


def screens(kind: str) -> Runs:
    """The journal of the projection differences."""
    recipe = {"rows": SCREENED, "samples": finetunes.SAMPLES}
    return Runs(FOLDER / f"screens{SUFFIXES[kind]}.jsonl", recipe)


def costs() -> Runs:
    """The journal of what each form costs, alone and from the beginning."""
    return Runs(FOLDER / "costs.jsonl", {"data": COSTED})


def cost(base: Runner, vectors: TraitVectors, form: Form, rows: int) -> Found:
    """What it takes to measure one data set that nothing is known of."""
    settings = replace(SCREENING, form=form, subset=rows)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "data.jsonl"
        write_rows(path, [one.row for one in samples(COSTED)])
        screened = Screener(base.subject, vectors, folder=folder, settings=settings).screen(path)
        return {"cost": asdict(screened.cost)}


def shifted(meter: ShiftMeter, tuned: Runner) -> Found:
    """Along every trait: at the trait's layer, the part that no other trait shares, and every layer."""
    found = meter.measure(tuned.subject).traits
    own = {trait: next(s for s in one.layers if s.layer == one.layer) for trait, one in found.items()}
    return {
        "shift": {trait: asdict(one.shift) for trait, one in own.items()},
        "own": {trait: asdict(one.own) if one.own else None for trait, one in own.items()},
        "layers": {trait: [s.shift.value for s in one.layers] for trait, one in found.items()},
    }


def screened(screener: Screener, name: str) -> Found:
    """The projection differences of the data of a run, in three forms, and what they cost."""
    path = FOLDER / "data" / f"{name.replace('/', '-')}.jsonl"
    write_rows(path, [one.row for one in samples(name)])
    found = screener.screen(path)
    rows = {form: found.differences(form).round(4).tolist() for form in ("exact", "last-prompt")}
    return {
        "traits": found.traits,
        "exact": _plain(found.means),
        "last-prompt": _plain(found.means_of("last-prompt")),
        "rows": rows,
        "cost": asdict(found.cost),
    }


def _plain(means: Mapping[str, Estimate | None]) -> Mapping[str, object]:
    return {trait: asdict(one) for trait, one in means.items() if one}


if __name__ == "__main__":
    sys.exit(main())
