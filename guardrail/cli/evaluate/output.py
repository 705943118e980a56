"""What `guardrail evaluate` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from guardrail.cli.console import interval, print_table

if TYPE_CHECKING:
    from guardrail.evaluation.results import Evaluation, Monitoring, TraitResult
    from guardrail.evaluation.shadow import Shadow
    from guardrail.evaluation.sweep import SteeringSweep
    from guardrail.statistics.intervals import Estimate
    from guardrail.statistics.nulls import Null

NONE = (None, None, None)


def print_evaluation(found: Evaluation) -> None:
    """Print tables, notes and gates."""
    typer.echo(f"model {found.model}; data {found.data}; vectors {found.vectors_sha256[:12]}; 95 % intervals")
    detection = ("trait", "layer", "prompts", "AUROC", "vs other traits", "TPR at 1 % FPR", "text baseline")
    rows = [(name, *_detection(trait)) for name, trait in found.traits.items() if trait.detection]
    if rows:
        print_table(detection, rows, title="\ndetection")
    _print_slices(found)
    _print_monitoring(found)
    _print_nulls(found)
    _print_detectors(found)
    _print_gates(found)


def _print_gates(found: Evaluation) -> None:
    for note in found.notes:
        typer.echo(f"note: {note}")
    for gate in found.gates:
        typer.echo(f"{gate.verdict}: {gate.name} {gate.demand:g} of {gate.of}: {interval(gate.found)}")


def _detection(trait: TraitResult) -> tuple[object, ...]:
    one = trait.detection
    assert one is not None
    return (
        *(trait.layer, f"{one.positives} / {one.negatives}", interval(one.auroc)),
        *(
            interval(one.auroc_vs_other_traits),
            interval(one.tpr_at_1pct_fpr),
            interval(one.text_baseline_auroc),
        ),
    )


def _print_slices(found: Evaluation) -> None:
    """Print the worst value of each slice; --html and --json have them all."""
    rows: list[tuple[object, ...]] = []
    for trait, result in found.traits.items():
        for name, parts in result.detection.slices.items() if result.detection else ():
            value, one = min(parts.items(), key=lambda part: part[1].auroc.value)
            prompts = f"{one.positives} / {one.negatives}"
            rates = (interval(one.auroc), interval(one.fpr), interval(one.tpr))
            rows.append((trait, f"{name}: {value}", prompts, one.against, *rates))
    if rows:
        head = ("trait", "slice", "prompts", "against", "AUROC", "FPR at threshold", "TPR at threshold")
        print_table(head, rows, title="\nthe worst slices (all of them: --html, --json)")


def _monitored(one: Monitoring) -> tuple[object, ...]:
    return (
        *(one.prompts, interval(one.r_overall), interval(one.r_within)),
        *(interval(one.references.label_alone), interval(one.references.propensity_within)),
        *((sure.one, sure.mean, sure.within_mean) if (sure := one.references.reliability) else NONE),
    )


def _print_monitoring(found: Evaluation) -> None:
    rows = [(name, *_monitored(one)) for name, trait in found.traits.items() if (one := trait.monitoring)]
    if rows:
        head = (
            *("trait", "prompts", "r", "r within", "label alone", "propensity within"),
            *("one reply", "mean reply", "mean reply within"),
        )
        print_table(head, rows, title="\nprojection against later expression")


def _print_nulls(found: Evaluation) -> None:
    rows = [
        (
            *(name, _null(one.random_auroc), _null(one.shuffled_auroc), _null(one.random_r_overall)),
            *(_null(one.random_r_within), _null(one.shuffled_r_within)),
        )
        for name, trait in found.traits.items()
        if (one := trait.nulls).random_auroc or one.shuffled_auroc or one.random_r_overall
    ]
    if rows:
        auroc, within = ("AUROC, random", "AUROC, shuffled"), ("r within, random", "r within, shuffled")
        head = ("trait", *auroc, "r, random", *within)
        print_table(head, rows, title="\nagainst chance: p (observed vs the 95th percentile of chance)")


def _null(found: Null | None) -> str:
    from guardrail.statistics.nulls import chance

    return "" if found is None else f"{chance(found)} ({found.observed:.2f} vs {found.high:.2f})"


def _print_detectors(found: Evaluation) -> None:
    columns = list(dict.fromkeys(c for one in found.detectors.values() for c in one.fires_on))
    rows = [
        (name, interval(one.fpr), interval(one.tpr), *(_percent(one.fires_on.get(c)) for c in columns))
        for name, one in found.detectors.items()
    ]
    if rows:
        head = ("", "FPR", "TPR", *columns)
        print_table(head, rows, title="\nfires on prompts that show ... (%)")
    if found.set_fpr:
        typer.echo(f"any enforced policy on prompts that show no trait: {interval(found.set_fpr)}")


def print_sweep(found: SteeringSweep) -> None:
    """Print one line for each way of steering."""
    rows = [
        (
            *(p.trait, p.prompts, p.operator or "none", p.span or ""),
            f"{p.coefficient:g}" if p.operator else "",
            *(interval(p.expression, ".0f"), interval(p.coherence, ".0f"), interval(p.capability)),
        )
        for p in found.points
    ]
    head = ("trait", "prompts", "operator", "layers", "coefficient", "expression", "coherence", "capability")
    print_table(head, rows, title=f"\nsteering, {found.replies} replies each")
    for note in found.notes:
        typer.echo(f"note: {note}")


def print_shadow(found: Shadow) -> None:
    """Print one line for each policy."""
    typer.echo(
        f"{found.records} records, {found.evaluated} evaluated; with shadows enforced, the action changes in "
        f"{interval(found.changed)} of them"
    )
    rows = [
        (
            *(name, ", ".join(one.traits), str(one.evaluated), interval(one.fired), str(one.fired_as_shadow)),
            *(_counts(one.would), str(one.alone), _counts(one.beside)),
        )
        for name, one in found.policies.items()
    ]
    counts = ("records", "fired", "as a shadow", "would have done", "alone", "beside enforced")
    print_table(("policy", "traits", *counts), rows)
    told = [
        (name, str(a.labelled), interval(a.precision), interval(a.tpr), interval(a.fpr))
        for name, one in found.policies.items()
        if (a := one.agreement)
    ]
    if told:
        print_table(("policy", "labelled", "precision", "TPR", "FPR"), told, title="\nagainst labels")
    for note in found.notes:
        typer.echo(f"note: {note}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _percent(value: Estimate | None) -> str:
    return "" if value is None else f"{100 * value.value:.1f}"
