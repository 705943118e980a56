"""What `guardrail calibrate` and `guardrail calibrate drift` print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from guardrail.cli.calibrate.options import RateOptions, ResultOptions
from guardrail.cli.console import console, print_json, print_table
from guardrail.errors import CalibrationError

if TYPE_CHECKING:
    from guardrail.calibrate.achieved import Trigger
    from guardrail.calibrate.drift import DriftReport, RateDrift, ScoreDrift
    from guardrail.calibrate.fit import Calibrated
    from guardrail.calibrate.policy_edit import PolicyEdit
    from guardrail.calibration.evidence import Achieved, Evidence
    from guardrail.calibration.slices import Slice
    from guardrail.calibration.values import Calibration


def _evidence(calibration: Calibration) -> Evidence:
    if calibration.evidence is None:
        raise CalibrationError("the calibration has no evidence")
    return calibration.evidence


def print_calibrated_json(
    made: Calibrated,
    shown: Sequence[Achieved],
    edit: PolicyEdit | None,
    rates: RateOptions,
    result: ResultOptions,
) -> None:
    """Print one line of JSON."""
    calibration = made.calibration
    evidence = _evidence(calibration)
    print_json(
        {
            "calibration": str(result.out),
            "sha256": calibration.sha256,
            "vectors_sha256": calibration.vectors_sha256,
            "population": calibration.population,
            "created": calibration.created,
            **{name: value for name, value in asdict(evidence).items() if name != "achieved"},
            "achieved": [_with_rate(one) for one in evidence.achieved],
            "worst_slice": calibration.worst_slice,
            "slices": {name: _slice(one) for name, one in calibration.slices.items()},
            "deciding": [_decided(one) for one in made.triggers if one.deciding],
            "thresholds": [{"key": _key(k), "threshold": _plain(v)} for k, v in made.thresholds.items()],
            "prompts_needed": _needed(rates),
            "warnings": made.warnings,
            "found": [_with_rate(one) for one in shown],
            "diff": edit.diff() if edit else None,
            "written": bool(edit and edit.changes and result.write),
        }
    )


def _with_rate(one: Achieved) -> dict[str, object]:
    return {**asdict(one), "rate": one.rate}


def _slice(one: Slice) -> dict[str, object]:
    names = ("source", "source_sha256", "prompts", "duplicates", "skipped")
    achieved = [_with_rate(rate) for rate in one.achieved]
    return {**{name: getattr(one, name) for name in names}, "achieved": achieved}


def _decided(trigger: Trigger) -> dict[str, object]:
    return {"kind": trigger.kind, "name": trigger.name, "slices": trigger.deciding}


def _plain(threshold: object) -> object:
    from pydantic import BaseModel

    return threshold.model_dump() if isinstance(threshold, BaseModel) else threshold


def _key(path: tuple[str | int, ...]) -> str:
    from guardrail.errors import Problem

    return Problem("", path).key


def _needed(rates: RateOptions) -> dict[str, float]:
    from guardrail.calibrate.sizes import Rates
    from guardrail.statistics.conformal import prompts_needed

    rate = Rates(fpr=rates.fpr, set_fpr=rates.set_fpr).rate
    width = rates.width or rate
    return {
        "fpr": rate,
        "at_least": prompts_needed(rate),
        "interval_width": width,
        "for_interval": prompts_needed(rate, width),
    }


def print_calibrated(
    made: Calibrated,
    shown: Sequence[Achieved],
    edit: PolicyEdit | None,
    rates: RateOptions,
    result: ResultOptions,
) -> None:
    """Print for people: the sample, the achieved rates, and the changes to the policy file."""
    evidence = _evidence(made.calibration)
    _print_sample(evidence, rates)
    if evidence.achieved:
        columns = ("", "name", "target", "held out", "fired", "rate", "95 % interval")
        print_table(columns, map(_row, evidence.achieved), title="\nachieved on the held-out prompts")
    _print_slices(made)
    if shown:
        columns = ("", "name", "target", "with the trait", "fired", "rate", "95 % interval")
        print_table(columns, map(_row, shown), title="\nfired on the labelled prompts with the trait")
    for one in evidence.achieved:
        if one.tied:
            typer.echo(
                f"{one.name}: {one.tied} prompts share the score at the threshold and none of them may fire, "
                "so the rate is lower than asked for"
            )
    if rates.set_fpr is not None:
        _print_set(made, rates.set_fpr)
    for text in made.warnings:
        typer.echo(f"\nwarning: {text}")
    typer.echo(f"\n{result.out}: written; sha256 {made.calibration.sha256[:12]}")
    if edit is not None:
        _print_edit(edit, result.write)


def _print_sample(evidence: Evidence, rates: RateOptions) -> None:
    typer.echo(
        f"{evidence.prompts} distinct benign prompts: {evidence.calibrated} to calibrate on, "
        f"{evidence.held_out} held out; left out: {evidence.duplicates} duplicates, {evidence.skipped} that "
        "cannot be read"
    )
    _print_rate(evidence, rates)


def _print_rate(evidence: Evidence, rates: RateOptions) -> None:
    from guardrail.statistics.conformal import fpr_interval

    needed = _needed(rates)
    low, high = fpr_interval(evidence.calibrated, needed["fpr"])
    default = " (the default)" if rates.fpr is None and rates.set_fpr is None else ""
    typer.echo(
        f"a rate of {needed['fpr']:.2%}{default} from {evidence.calibrated} prompts is really within "
        f"[{low:.2%}, {high:.2%}] (95 %); it needs at least {needed['at_least']} to calibrate on, and "
        f"an interval {needed['interval_width']:.2%} wide needs {needed['for_interval']}"
    )


def _row(one: Achieved) -> Sequence[object]:
    target = "" if one.fpr is None else f"{one.fpr:.3%}"
    interval = f"[{one.low:.2%}, {one.high:.2%}]"
    name = one.name or "all enforced policies"
    return (one.kind, name, target, str(one.n), str(one.fired), f"{one.rate:.2%}", interval)


def _print_slices(made: Calibrated) -> None:
    worst, slices = made.calibration.worst_slice, made.calibration.slices
    columns = ("slice", "", "name", "target", "prompts", "fired", "rate", "95 % interval")
    rows = [(name, *_row(one)) for name, own in slices.items() for one in own.achieved]
    if rows:
        part = "held-out prompts" if worst else "prompts"
        print_table(columns, rows, title=f"\nachieved on the {part} of the slices")
    for one in made.triggers if worst else ():
        if one.deciding:
            typer.echo(f"{one.name}: the threshold comes from {' and '.join(map(_population, one.deciding))}")


def _population(name: str) -> str:
    from guardrail.calibration.slices import BENIGN

    return "the benign sample" if name == BENIGN else f"the slice `{name}`"


def _print_set(made: Calibrated, target: float) -> None:
    typer.echo(
        f"\nany enforced policy fires on at most {target:.2%} of fresh benign prompts like these, on average "
        "over samples; the rates keep the file's proportions:"
    )
    for path, threshold in made.thresholds.items():
        typer.echo(f"  {_key(path)}: {_plain(threshold)}")
    if made.plan and made.plan.reply_rules:
        names = ", ".join(rule.id for rule in made.plan.reply_rules)
        typer.echo(f"not part of this rate, which is for prompts: {names} (for replies)")


def _print_edit(edit: PolicyEdit, written: bool) -> None:
    if not edit.changes:
        typer.echo(f"{edit.path}: no change: {{fpr: ...}} and {{percentile: ...}} follow the calibration")
        return
    typer.echo(f"\n{edit.diff()}")
    typer.echo(
        f"{edit.path}: written" if written else f"{edit.path}: not changed; --write --force changes it"
    )


def print_drift(report: DriftReport) -> None:
    """Print for people: rates and distributions, each with its verdict."""
    from guardrail.calibrate.drift import MIN_SCORES

    left_out = (
        f"{report.repeated} repeated, {report.without_scores} without scores, "
        f"{report.other_vectors} with other vectors, {report.other_calibration} under another calibration"
    )
    typer.echo(
        f"{report.records} distinct prompts ({left_out}); at most {report.harmful_share:.1%} of them are "
        "assumed harmful"
    )
    columns = ("policy", "trait", "layer", "n", "fired (99 %)", "calibrated (99 %)", "")
    print_table(columns, map(_firing, report.rates), title="\nfiring rates")
    columns = ("trait", "layer", "n", "mean", "sd", "KS", "p", "PSI", "")
    print_table(columns, map(_scores, report.scores), title="\nscores (calibration: mean 0, sd 1)")
    if report.drifted:
        console().print("\nlive scores have drifted: look at the traffic, then calibrate on it again")
    elif report.distance is None:
        console().print(
            f"\ntoo early to say that scores have not drifted: it takes {MIN_SCORES} distinct prompts"
        )


def _firing(r: RateDrift) -> Sequence[object]:
    calibrated = _percent(None, r.calibrated_low, r.calibrated_high)
    fired = _percent(r.fired / r.n, r.low, r.high)
    return (r.policy, r.trait, r.layer, str(r.n), fired, calibrated, _verdict(r.drifted))


def _scores(s: ScoreDrift) -> Sequence[object]:
    verdict = "too few" if s.too_few else _verdict(s.drifted)
    return (s.trait, s.layer, str(s.n), s.mean, s.sd, s.ks, f"{s.p:.1e}", s.psi, verdict)


def _percent(rate: float | None, low: float, high: float) -> str:
    interval = f"[{low:.2%}, {high:.2%}]"
    return interval if rate is None else f"{rate:.2%} {interval}"


def _verdict(drifted: bool) -> str:
    return "DRIFTED" if drifted else "ok"
