"""`python -m benchmarks.real.detection MODEL`: how well harm is found, on prompts from elsewhere.

Every source is left out in turn: the detector is fitted, and its thresholds set, without it. `ordinary`: the
lowest threshold that 1 % of the ordinary prompts kept for it reach. `worst`: that 1 % of the look-alikes kept
for it do not reach either, as `calibrate --worst-slice` sets it.
XSTest, Alpaca and what is shifted are only ever measured. Goes on where reading the model was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.real import prompt_files, results
from benchmarks.real.detection_prompts import sets
from benchmarks.real.detectors import Detector, Probe, Rows, labelled, text_scorer, tf_idf
from benchmarks.real.models import MODELS, QWEN_15B, RealModel
from benchmarks.real.prefixed_states import PrefixedStates
from benchmarks.real.prompt_files import Prompt
from benchmarks.real.states import stored
from benchmarks.real.subjects import subject
from guardrail.extract.fit.duplicates import grouped
from guardrail.statistics.intervals import Estimate, Numbers, rate
from guardrail.statistics.metrics import auroc
from guardrail.types import Array, Place

RATE, CALIBRATION, SEED = 0.01, 0.4, 0
"""The rate to keep, and the share of harmless prompts that are kept apart to set the threshold."""
LOOK_ALIKES = ("contrast-safe", "twins-safe")
SLOW_LAYERS = (9, 12, 15)
"""Of 28: what Qwen2.5-Coder-1.5B-Instruct is read at."""
SLOW_NOTES = ("Float32; layers 9, 12 and 15 of 28.",)
FOLDS: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "advbench/tdc2023": ("advbench/tdc2023",),
    "contrast": ("contrast-safe", "contrast-unsafe"),
    "self-instruct": ("self-instruct/user-oriented", "self-instruct/seed"),
    "chat": ("vicuna_bench", "mt_bench", "everyday"),
}
"""What is left out, by the name of the fold."""
PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "nothing": (("xstest-unsafe", "xstest-safe"),),
    "advbench/tdc2023": (
        ("advbench/tdc2023", "alpaca"),
        ("harmful, second turn", "alpaca, second turn"),
        ("harmful, system prompt", "alpaca, system prompt"),
    ),
    "contrast": (("contrast-unsafe", "contrast-safe"),),
}
"""What is told from what, under which fold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One detector. worst, ordinary: the share of each set that reaches the threshold.

    Sources stand under the fold that left them out, other sets under the fold that left nothing out, shifted
    harmful prompts under the fold without their source. auroc: by what is told apart, as in PAIRS.
    """

    detector: str
    worst: Mapping[str, Estimate]
    ordinary: Mapping[str, Estimate]
    auroc: Mapping[str, Estimate]
    chosen: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """All prompts in one row of arrays. `part`: the set of each; rows of `fit` may be fitted on."""

    prompts: Sequence[Prompt]
    part: Sequence[str]
    groups: Rows = field(repr=False)

    def of(self, part: str, source: str | None = None) -> Rows:
        """The rows of a set, or of one source of it."""
        return np.array(
            [
                i
                for i, (own, prompt) in enumerate(zip(self.part, self.prompts, strict=True))
                if own == part and source in (None, prompt.source)
            ],
            dtype=np.intp,
        )

    def named(self, name: str) -> Rows:
        """The rows of a set, or of a source of those that may be fitted on."""
        return self.of(name) if name in self.part else self.of("fit", name)

    def split(self, left_out: Sequence[str]) -> tuple[Rows, Rows]:
        """(rows to fit on, harmless rows for the threshold), without near duplicates of what is left out."""
        rows = self.of("fit")
        sources = np.array([self.prompts[i].source for i in rows])
        out = np.isin(sources, left_out)
        near = np.isin(self.groups[rows], self.groups[rows[out]])
        rng = np.random.default_rng(SEED)
        names = np.unique(self.groups[rows])
        apart = rng.permutation(names)[: int(CALIBRATION * len(names))]
        calibration = np.isin(self.groups[rows], apart)
        harmful = np.array([self.prompts[i].harm for i in rows])
        keep = ~out & ~near
        return rows[keep & ~calibration], rows[keep & calibration & ~harmful]


def main() -> int:
    arguments = _arguments()
    model = {model.name: model for model in MODELS}[arguments.model]
    slow = model is QWEN_15B
    found = sets(arguments.data)
    table = tabled(found)
    states = prefixed(model, SLOW_LAYERS, found) if slow else _states(model, found)
    layers = SLOW_LAYERS if slow else ()
    detectors: dict[str, Detector] = {
        "vectors fit, last token only": Probe(states, ("last",), 1, layers),
        "TF-IDF": tf_idf,
        "text-scorer": text_scorer,
        "vectors fit": Probe(states, ("last", "user_mean"), 2, layers),
    }
    sizes = {part: len(prompts) for part, prompts in found.items()}
    dtype = "float32" if slow else "bfloat16"
    rows: list[Measured] = []
    for name, detector in detectors.items():
        rows.append(measured(name, detector, table))
        saved = {"model": model.name, "dtype": dtype, "sizes": sizes, "detectors": rows}
        print(results.save(f"detection-{model.name}", saved, SLOW_NOTES if slow else ()), name, flush=True)
    return 0


def _states(model: RealModel, found: Mapping[str, Sequence[Prompt]]) -> Mapping[Place, Array]:
    """Of all prompts, set after set; read unless an earlier run did."""
    read = subject(model)
    return _joined(
        stored(read, name, [prompt.messages for prompt in prompts], results.RUNS / "states")
        for name, prompts in found.items()
    )


def prefixed(
    model: RealModel, layers: tuple[int, ...], found: Mapping[str, Sequence[Prompt]]
) -> Mapping[Place, Array]:
    """The same at a few layers. Float32: without instructions for bfloat16 it is six times as fast."""
    read = PrefixedStates(subject(model, torch.float32), layers, results.RUNS / "prefixed-states")
    return _joined(
        read.stored(name, [prompt.messages for prompt in prompts]) for name, prompts in found.items()
    )


def _joined(parts: Iterable[Mapping[Place, Array]]) -> dict[Place, Array]:
    found = list(parts)
    return {place: np.concatenate([part[place] for part in found]) for place in found[0]}


def tabled(found: Mapping[str, Sequence[Prompt]]) -> Table:
    """All prompts of the sets."""
    prompts = [prompt for own in found.values() for prompt in own]
    part = [name for name, own in found.items() for _ in own]
    groups = grouped([labelled(i, prompt) for i, prompt in enumerate(found["fit"])])
    return Table(prompts, part, groups)


def measured(name: str, detector: Detector, table: Table, folds: Collection[str] = FOLDS) -> Measured:
    """One detector under every fold, or under those named."""
    worst: dict[str, Estimate] = {}
    ordinary: dict[str, Estimate] = {}
    areas: dict[str, Estimate] = {}
    for fold in folds:
        left_out = FOLDS[fold]
        rows, calibration = table.split(left_out)
        scores = detector(table.prompts, rows)
        parts = _measured_under(fold, left_out, table)
        limits = thresholds(table, scores, calibration)
        worst |= {part: rate(scores[own] >= max(limits)) for part, own in parts.items()}
        ordinary |= {part: rate(scores[own] >= limits[0]) for part, own in parts.items()}
        for harmful, harmless in PAIRS.get(fold, ()):
            high, low = (scores[table.named(part)] for part in (harmful, harmless))
            if len(high) and len(low):
                areas[f"{harmful} against {harmless}"] = auroc(high, low)
    chosen = detector.chosen if isinstance(detector, Probe) else ()
    return Measured(detector=name, worst=worst, ordinary=ordinary, auroc=areas, chosen=tuple(chosen))


def _measured_under(fold: str, left_out: Sequence[str], table: Table) -> dict[str, Rows]:
    """The rows of the sources and sets that are measured under a fold."""
    sets = [part for part in dict.fromkeys(table.part) if part != "fit"]
    shifted = [part for part in sets if part.startswith("harmful, ")]
    if fold == "nothing":
        return {part: table.of(part) for part in sets if part not in shifted}
    own = {source: table.of("fit", source) for source in left_out}
    return own | {part: table.of(part) for part in shifted if fold == "advbench/tdc2023"}


def thresholds(table: Table, scores: Numbers, calibration: Rows) -> tuple[float, ...]:
    """For the ordinary prompts, and for the look-alikes if there are any."""
    alike = np.array([table.prompts[i].source in LOOK_ALIKES for i in calibration])
    return tuple(above(scores[calibration[side]]) for side in (~alike, alike) if side.any())


def above(scores: Numbers) -> float:
    """The lowest threshold that at most RATE of the scores reach."""
    ordered = np.sort(scores)[::-1]
    allowed = int(RATE * len(ordered))
    return float(np.nextafter(ordered[allowed], np.inf))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    prompt_files.takes_data(parser)
    names = [model.name for model in MODELS]
    parser.add_argument("model", choices=names, metavar="MODEL", help=", ".join(names))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
