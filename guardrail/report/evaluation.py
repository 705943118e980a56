"""The report of an evaluation: its results next to their references."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from guardrail.evaluation.results import Evaluation, Gate, SliceResult, TraitResult
from guardrail.evaluation.sweep import SteeringSweep
from guardrail.report import figures, leads
from guardrail.report.page import (
    Block,
    Cell,
    Drawn,
    Heading,
    Page,
    Section,
    Table,
    Text,
    estimate,
    number,
    percent,
)
from guardrail.report.sweep import steering_section
from guardrail.statistics.nulls import Null, chance

DETECTION = (
    "How well each probe separates prompts that show its trait from prompts that show none, and from "
    "prompts that show another trait. The text baseline only sees the words: a probe that does not "
    "beat it may be just a costly keyword detector. Verdicts compare 95 % intervals: that of the "
    "AUROC with 0.5, and with that of the text baseline."
)
CHANCE = (
    "p-values: how often chance does as well. Random directions have the covariance of neutral text "
    "and no information about traits; if the layer was chosen, each draw uses its own best layer. Next"
    " to p: the 95th percentile of chance."
)
THRESHOLDS = (
    "What the thresholds achieve on this data. A threshold keeps its rate only on prompts like those "
    "that it was calibrated on."
)


def page(found: Evaluation, swept: SteeringSweep | None = None) -> Page:
    """The whole report."""
    sections = [
        _gates(found.gates),
        _summary(found),
        _thresholds(found),
        _confusion(found),
        _monitoring(found),
        _nulls(found),
        *[_trait(name, trait) for name, trait in found.traits.items()],
        steering_section(swept) if swept else None,
    ]
    return Page(
        title=f"Evaluation of {', '.join(found.traits)}",
        subtitle=f"Model {found.model}; data {found.data}; vectors {found.vectors_sha256[:12]}; "
        f"{datetime.now(UTC):%Y-%m-%d}. Intervals are 95 %.",
        sections=[section for section in sections if section],
        notes=[*leads.evaluation_notes(found), *found.notes],
        lead=leads.evaluation(found),
    )


def _gates(gates: tuple[Gate, ...]) -> Section | None:
    rows = [
        [
            Cell(gate.of),
            Cell(gate.name),
            Cell(f"{gate.demand:g}"),
            estimate(gate.found),
            Cell(gate.verdict, tone=leads.tone_of(gate.verdict)),
        ]
        for gate in gates
    ]
    text = "Passed means that the whole interval meets the demand; inconclusive counts as failed."
    head = ("", "gate", "demand", "found", "verdict")
    return Section("Gates", [Text(text), Table(head, rows)]) if gates else None


def _summary(found: Evaluation) -> Section:
    rows = [[Cell(name), *_summary_row(trait)] for name, trait in found.traits.items()]
    head = (
        *("trait", "layer", "prompts", "AUROC", "TPR at 1 % FPR", "average precision"),
        *("AUROC vs other traits", "text baseline AUROC", "its TPR at 1 % FPR", "verdict"),
    )
    blocks: list[Block] = [Text(DETECTION), Table(head, rows)]
    if any(trait.detection for trait in found.traits.values()):
        blocks.append(Drawn(figures.layers(found.traits)))
    return Section("Detection", blocks)


def _summary_row(trait: TraitResult) -> list[Cell]:
    layer = Cell(str(trait.layer), "fires below" if trait.fires == "below" else "")
    if (one := trait.detection) is None:
        return [layer, *[Cell("–")] * 8]
    return [
        layer,
        Cell(f"{one.positives} / {one.negatives}"),
        estimate(one.auroc),
        percent(one.tpr_at_1pct_fpr),
        estimate(one.average_precision),
        estimate(one.auroc_vs_other_traits),
        estimate(one.text_baseline_auroc),
        percent(one.text_baseline_tpr_at_1pct_fpr),
        Cell(leads.detects(one), tone=leads.tone_of(leads.detects(one))),
    ]


def _thresholds(found: Evaluation) -> Section | None:
    live = {name: one for name, one in found.detectors.items() if one.source != "data"}
    if not live:
        return None
    rows = [
        [Cell(name), Cell(", ".join(one.traits)), Cell(one.mode), percent(one.fpr), percent(one.tpr)]
        for name, one in live.items()
    ]
    if found.set_fpr:
        rows.append([Cell("any enforced policy"), Cell(""), Cell(""), percent(found.set_fpr), Cell("–")])
    return Section("Thresholds", [Text(THRESHOLDS), Table(("", "trait", "mode", "FPR", "TPR"), rows)])


def _confusion(found: Evaluation) -> Section | None:
    blocks: list[Block] = []
    if found.detectors:
        text = "How often each detector (row) fires on the prompts of each trait (column)."
        blocks += [Text(text), Drawn(figures.confusion(found.detectors))]
    if len(found.traits) > 1:
        r = found.cosine_vs_coexpression
        known = f" Off the diagonal, the two correlate with r = {r:.2f}." if r is not None else ""
        text = f"Similar directions, next to traits that occur together in replies.{known}"
        blocks += [Text(text), Drawn(figures.similarity(found.cosines, found.coexpression))]
    return Section("Confusion", blocks) if blocks else None


def _monitoring(found: Evaluation) -> Section | None:
    live = {name: one for name, trait in found.traits.items() if (one := trait.monitoring)}
    if not live:
        return None
    rows = []
    for name, one in live.items():
        reference, sure = one.references, one.references.reliability
        rows.append(
            [
                *(Cell(name), Cell(f"{one.prompts} / {one.conditions}")),
                *(estimate(one.r_overall, 2), estimate(one.r_within, 2)),
                *(estimate(reference.label_alone, 2), estimate(reference.propensity_overall, 2)),
                estimate(reference.propensity_within, 2),
                *(number(sure.one if sure else None), number(sure.mean if sure else None)),
                number(sure.within_mean if sure else None),
            ]
        )
    text = (
        "Projections before the first token against how strongly the replies then showed the trait. "
        "The value within conditions is the meaningful one: between conditions the system prompt alone "
        "says much. It leaves out conditions whose expression hardly varies (standard deviation below 1). "
        "References: the prediction from the condition's label alone; from the generator's own propensity, "
        "if there is one; and how well one reply (or the mean of several) predicts another reply to the"
        " same prompt."
    )
    head = (
        *("trait", "prompts / conditions", "r", "r within", "label alone", "propensity", "propensity within"),
        *("one reply", "mean reply", "mean reply within"),
    )
    return Section("Monitoring", [Text(text), Table(head, rows)])


def _nulls(found: Evaluation) -> Section | None:
    rows = [
        [Cell(name), *map(_null, _all_nulls(trait))]
        for name, trait in found.traits.items()
        if any(_all_nulls(trait))
    ]
    head = (
        *("trait", "AUROC, random directions", "AUROC, shuffled labels", "r, random directions"),
        *("r within, random directions", "r within, shuffled replies"),
    )
    return Section("Results of chance", [Text(CHANCE), Table(head, rows)]) if rows else None


def _all_nulls(trait: TraitResult) -> tuple[Null | None, ...]:
    one = trait.nulls
    return (
        *(one.random_auroc, one.shuffled_auroc, one.random_r_overall),
        *(one.random_r_within, one.shuffled_r_within),
    )


def _null(found: Null | None) -> Cell:
    if found is None:
        return Cell("–")
    tone = "" if found.p < 0.05 else "bad"
    return Cell(chance(found), f"{found.observed:.2f} vs {found.high:.2f}", tone)


def _trait(name: str, trait: TraitResult) -> Section:
    blocks: list[Block] = []
    if trait.detection:
        blocks += [Drawn(figures.detection(name, trait)), *_slices(trait.detection.slices)]
    if trait.monitoring:
        blocks.append(Drawn(figures.monitoring(name, trait)))
    if any(_all_nulls(trait)):
        blocks.append(Drawn(figures.null(name, trait)))
    return Section(name, blocks)


def _slice_row(name: str, one: SliceResult) -> list[Cell]:
    return [
        Cell(name),
        Cell(f"{one.positives} / {one.negatives}"),
        Cell("" if one.against == "its own" else f"against {one.against}"),
        estimate(one.auroc),
        percent(one.fpr),
        percent(one.tpr),
    ]


def _slices(slices: Mapping[str, Mapping[str, SliceResult]]) -> list[Block]:
    parts = [(f"{name}: {value}", one) for name, part in slices.items() for value, one in part.items()]
    rows = [_slice_row(name, one) for name, one in parts]
    head = ("slice", "shows it / does not", "", "AUROC", "FPR at the threshold", "TPR at the threshold")
    return [Heading("Slices"), Table(head, rows)] if rows else []
