"""Does `{fpr: 0.01}` hold? Many calibration samples, each tried on fresh benign prompts of its population.

For every sample and trait: the split-conformal threshold of the calibration part, the Clopper-Pearson
interval of the rate on the held-out part (what `guardrail calibrate` prints), and the rate on the fresh
prompts. Goals: 90 % of these intervals hold the fresh rate, and the mean fresh rate is at most 1.2 times the
target. Beside that, the interval that follows from the number of prompts alone (`policy explain` prints it),
with the coverage that theory expects of it: it is about the true rate, and the fresh rate has noise of its
own. And `--set-fpr`: all traits as one set of policies.

`python -m benchmarks.calibration` takes the built-in model, its vectors and its benign prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np

from guardrail.bench import machine as provenance
from guardrail.calibrate.joint_rates import Bar, Member, joint_rates
from guardrail.calibrate.projections import Projections
from guardrail.calibration.benign import Benign
from guardrail.statistics.conformal import conformal_rank, fpr_interval, observed_fpr

OUT = Path(__file__).parent / "results" / "calibration.json"
COVERAGE, MEAN_FACTOR = 0.9, 1.2
SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Projections of one sample: to calibrate on, held out, and fresh ones [n, traits at their layers]."""

    kept: Projections
    held_out: Projections
    fresh: Projections


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trait on one sample. Intervals are (low, high), 95 %."""

    sample: int
    trait: str
    layer: int
    held_out: tuple[float, float]
    stated: tuple[float, float]
    fired: int
    fresh: int

    @property
    def rate(self) -> float:
        """The share of fresh prompts that fired."""
        return self.fired / self.fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTrial:
    """All traits as one set on one sample: the rates that were found, and how many fresh prompts fired."""

    sample: int
    rates: tuple[float, ...]
    fired: int
    fresh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the trials say together."""

    intervals: int
    held_out_coverage: float
    stated_coverage: float
    stated_coverage_expected: float
    mean_rate: float
    mean_rate_by_trait: dict[str, float]
    mean_set_rate: float
    goals_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """A run with everything that it depends on."""

    fpr: float
    calibrated: int
    held_out: int
    fresh: int
    summary: Summary
    machine: provenance.Machine
    versions: dict[str, str]
    commit: str
    time: str
    seed: int
    vectors_sha256: str
    population: str
    trials: tuple[Trial, ...] = field(repr=False)
    set_trials: tuple[SetTrial, ...] = field(repr=False)


def trials(sample: int, parts: Parts, fpr: float) -> Iterator[Trial]:
    """One for each trait."""
    for trait, layer in parts.kept.columns:
        threshold = Benign.of(parts.kept.of(trait, layer)).conformal(fpr)
        before = parts.held_out.of(trait, layer) >= threshold
        after = parts.fresh.of(trait, layer) >= threshold
        _, low, high = observed_fpr(int(before.sum()), len(before))
        yield Trial(
            sample=sample,
            trait=trait,
            layer=layer,
            held_out=(low, high),
            stated=fpr_interval(len(parts.kept.values), fpr),
            fired=int(after.sum()),
            fresh=len(after),
        )


def set_trial(sample: int, parts: Parts, target: float) -> SetTrial:
    """Every trait is a policy with an equal share of the target."""
    columns = parts.kept.columns
    members = [Member(trait, (Bar(parts.kept.of(trait, layer), target),)) for trait, layer in columns]
    rates = [rate for (rate,) in joint_rates(members, target)]
    fired = [
        parts.fresh.of(t, i) >= Benign.of(parts.kept.of(t, i)).conformal(rate)
        for (t, i), rate in zip(columns, rates, strict=True)
    ]
    together = np.any(fired, axis=0)
    return SetTrial(sample=sample, rates=tuple(rates), fired=int(together.sum()), fresh=len(together))


def summary(found: Sequence[Trial], sets: Sequence[SetTrial], fpr: float, n: int) -> Summary:
    """Coverage, means, and whether the goals are met."""
    held_out = float(np.mean([low <= t.rate <= high for t in found for low, high in [t.held_out]]))
    stated = float(np.mean([low <= t.rate <= high for t in found for low, high in [t.stated]]))
    mean = float(np.mean([t.rate for t in found]))
    return Summary(
        intervals=len(found),
        held_out_coverage=held_out,
        stated_coverage=stated,
        stated_coverage_expected=expected_coverage(n, fpr, found[0].fresh),
        mean_rate=mean,
        mean_rate_by_trait={
            trait: float(np.mean([t.rate for t in found if t.trait == trait]))
            for trait in dict.fromkeys(t.trait for t in found)
        },
        mean_set_rate=float(np.mean([one.fired / one.fresh for one in sets])),
        goals_met=held_out >= COVERAGE and mean <= MEAN_FACTOR * fpr,
    )


def expected_coverage(n: int, fpr: float, fresh: int) -> float:
    """How often theory lets the rate on `fresh` prompts fall inside the interval of the true rate."""
    from scipy.stats import betabinom

    low, high = fpr_interval(n, fpr)
    rank = conformal_rank(n, fpr)
    counts = np.arange(np.ceil(low * fresh), np.floor(high * fresh) + 1)
    return float(betabinom(fresh, n + 1 - rank, rank).pmf(counts).sum())


Draw = Callable[[int], Parts]


def demo_draws(prompts: int, held_out: float, fresh: int, seed: int) -> tuple[Draw, str, str]:
    """(a function from a sample's number to its parts, the vectors' sha256, the population) of the demo."""
    from guardrail import demo
    from guardrail.calibrate import projections as collect
    from guardrail.calibrate import sample
    from guardrail.demo import material
    from guardrail.extract.subject import Subject
    from guardrail.types import Message
    from guardrail.vectors.values import TraitVectors

    subject, vectors = Subject.load("demo"), TraitVectors.load(demo.VECTORS)
    chosen = {trait: vector.layer for trait, vector in vectors.items()}
    directions = collect.probes(vectors)
    columns = [i for i, (trait, layer) in enumerate(directions.columns) if chosen[trait] == layer]
    read = collect.Directions(
        tuple(directions.columns[i] for i in columns),
        directions.weights[columns],
        directions.offsets[columns],
    )

    def projected(chosen: Sequence[sample.BenignPrompt]) -> Projections:
        return collect.prompt_projections(subject, chosen, read, lambda count: None)

    def draw(number: int) -> Parts:
        drawn = material.benign(seed + number, prompts + fresh, *SPLITS)
        Random(f"{seed}/{number}").shuffle(drawn)
        named = [(str(i), [Message(**message) for message in c.messages]) for i, c in enumerate(drawn)]
        found = sample.read(named, lambda messages: subject.render(messages).ids, subject.longest).prompts
        own = sample.split(found[:prompts], held_out, seed + number)
        return Parts(
            kept=projected(own.calibration),
            held_out=projected(own.held_out),
            fresh=projected(found[prompts:]),
        )

    return draw, vectors.sha256, material.POPULATION


def run(samples: int, prompts: int, held_out: float, fresh: int, fpr: float, seed: int) -> CalibrationReport:
    """Draw, calibrate and try; one line for each sample."""
    draw, vectors_sha256, population = demo_draws(prompts, held_out, fresh, seed)
    found: list[Trial] = []
    sets: list[SetTrial] = []
    parts = None
    for number in range(samples):
        parts = draw(number)
        own = list(trials(number, parts, fpr))
        found += own
        sets.append(set_trial(number, parts, fpr))
        rates = " ".join(f"{t.trait} {t.rate:.2%}" for t in own)
        print(f"{number + 1}/{samples}: {rates}; set {sets[-1].fired / sets[-1].fresh:.2%}", flush=True)
    assert parts is not None
    n = len(parts.kept.values)
    return CalibrationReport(
        fpr=fpr,
        calibrated=n,
        held_out=len(parts.held_out.values),
        fresh=fresh,
        summary=summary(found, sets, fpr, n),
        machine=provenance.machine(_device()),
        versions=provenance.versions(),
        commit=provenance.commit(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        vectors_sha256=vectors_sha256,
        population=population,
        trials=tuple(found),
        set_trials=tuple(sets),
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.calibration", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument(
        "--prompts", type=int, default=2500, help="of each sample, the held-out part included"
    )
    parser.add_argument("--held-out", type=float, default=0.2)
    parser.add_argument("--fresh", type=int, default=5000)
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    report = run(given.samples, given.prompts, given.held_out, given.fresh, given.fpr, given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(asdict(report.summary), indent=1))
    return 0 if report.summary.goals_met else 1


if __name__ == "__main__":
    sys.exit(main())
