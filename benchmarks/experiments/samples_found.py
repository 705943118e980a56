"""What single bad samples show: how well each score ranks and finds them, and what training makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from benchmarks.experiments import samples
from benchmarks.experiments.families import FAMILIES
from benchmarks.experiments.runs import Found
from benchmarks.experiments.samples import KINDS, SHARES, Flags, Scores
from guardrail.statistics.intervals import Numbers, mean, rate
from guardrail.statistics.metrics import auroc

RULES = ("exact", "last-prompt", "judge", "both")


def found() -> dict[str, object]:
    """All of it, ready to be saved."""
    measured, trained, longer = samples.journal(), samples.trainings(), samples.longer()
    return {
        "kinds": [
            {"kind": run.split("/")[0], "seed": run.split("/")[1], **_kind(measured[run])} for run in measured
        ],
        "trained": [_trained(run, trained[run]) for run in _ordered(list(trained))],
        "trained longer": [_trained(run, longer[run]) for run in longer],
    }


def _kind(one: Found) -> dict[str, object]:
    return {"rules": {rule: _rule(one, rule) for rule in RULES}}


def _rule(one: Found, rule: str) -> dict[str, object]:
    clean, bad, reference = one["clean"], one["inducing"], one["threshold"]
    hits, false = flagged(bad, reference, rule), flagged(clean, reference, rule)
    return {
        "auroc": asdict(auroc(ranked(bad, reference, rule), ranked(clean, reference, rule))),
        "recall": asdict(rate(hits)),
        "false": asdict(rate(false)),
        "precision": {str(share): precision(hits, false, share) for share in SHARES},
    }


def flagged(scores: Scores, clean: Scores, rule: str) -> Flags:
    """What a rule flags; `both` flags what the exact difference or the judge does."""
    return samples.flagged(scores, clean, rule)


def ranked(scores: Scores, clean: Scores, rule: str) -> Numbers:
    """A score to rank by: for `both`, the higher of the two shares of clean samples that lie below."""
    if rule != "both":
        return np.asarray(scores[rule], dtype=np.float64)
    return np.maximum(*(_below(scores[one], clean[one]) for one in ("exact", "judge")))


def _below(values: object, clean: object) -> Numbers:
    """Ties count half, so that equal scores rank equally; beyond all clean ones, by distance."""
    ordered = np.sort(np.asarray(clean, dtype=np.float64))
    found = np.asarray(values, dtype=np.float64)
    low, high = (np.searchsorted(ordered, found, side=side) for side in ("left", "right"))
    return (low + high) / (2 * len(ordered))


def precision(hits: Flags, false: Flags, share: float) -> float:
    """The share of bad samples among those flagged, where so large a share of the data is bad."""
    good, bad = share * hits.mean(), (1 - share) * false.mean()
    return float(good / (good + bad)) if good + bad else 0.0


def _trained(run: str, one: Found) -> dict[str, object]:
    kind, chosen, seed = run.split("/")
    return {
        "kind": kind,
        "trained on": chosen,
        "seed": seed,
        "inducing": one["inducing"],
        "loss": one["loss"],
        "score": asdict(mean(one["traits"][FAMILIES[kind].traits[0]])),
        "written": asdict(mean(one["written"])),
        "coherence": asdict(mean(one["coherence"])),
    }


def _ordered(runs: list[str]) -> Iterator[str]:
    return (run for kind in KINDS for run in runs if run.split("/")[0] == kind)
