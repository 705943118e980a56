"""The report of `guardrail calibrate`: thresholds, what they achieve, and the scores behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from guardrail.calibrate.achieved import Trigger
from guardrail.calibrate.contrast import Contrast
from guardrail.calibrate.fit import Calibrated
from guardrail.calibration.benign import Benign
from guardrail.calibration.evidence import Achieved
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.policy.rules import CompiledCondition
from guardrail.report import leads
from guardrail.report.drawing import BLUE, CYCLE, GREY
from guardrail.report.page import Cell, Drawn, Page, Section, Table, Text, percent
from guardrail.report.scores import Distribution, Layers, Limit, drawn
from guardrail.statistics.intervals import Estimate, rate

SCORES = (
    "Scores are standard deviations above the mean of the benign prompts that thresholds come from. In "
    "brackets: where the threshold may have come out with another sample like this one (95 %, order "
    "statistics). An open end means that the sample is too small to bound it."
)
VERDICTS = (
    "Verdicts compare the 95 % interval (Clopper-Pearson) of the rate with the target: fires too often if "
    "all of it is above, keeps the rate if none of it is, else the prompts cannot tell."
)


@dataclass(frozen=True, slots=True)
class _Found:
    """A calibration with what fires under it, and labelled prompts if there are any."""

    calibration: Calibration
    triggers: Sequence[Trigger]
    contrast: Contrast | None

    def places(self) -> list[tuple[str, int]]:
        """The traits and layers that thresholds read, each once."""
        read = [c for one in self.triggers for c in one.conditions]
        return list(dict.fromkeys((c.trait, c.layer) for c in read if c.layer is not None))

    def limits(self, trait: str, layer: int) -> list[Limit]:
        """The thresholds at one place, each with its name."""
        return [
            Limit(trigger.name, condition.threshold, *_span(self.calibration, condition))
            for trigger in self.triggers
            for condition in trigger.conditions
            if (condition.trait, condition.layer) == (trait, layer)
        ]

    def showing(self, trait: str, layer: int) -> Benign | None:
        """The labelled prompts that show a trait, summarised as benign ones are; None for too few."""
        own = self.contrast.of([trait]) if self.contrast else None
        try:
            return None if own is None else Benign.of(own.of(trait, layer))
        except CalibrationError:
            return None


def page(made: Calibrated, contrast: Contrast | None = None) -> Page:
    """The whole report."""
    calibration = made.calibration
    found = _Found(calibration, made.triggers, contrast)
    sections = [_thresholds(found), *_slices(calibration), _scores(found), _origin(calibration)]
    names = dict.fromkeys(trait for trait, _ in found.places())
    return Page(
        title=f"Calibration of {leads.several(list(names)) or 'thresholds'}",
        subtitle=f"{calibration.population}; {calibration.created[:10]}. Intervals are 95 %.",
        sections=sections,
        notes=_notes(found),
        lead=leads.calibration(calibration),
    )


def _notes(found: _Found) -> list[str]:
    calibration = found.calibration
    evidence, contrast = calibration.evidence, found.contrast
    counts = [("benign prompts", evidence.calibrated), ("held out", evidence.held_out)] if evidence else []
    counts += [(f"prompts of {name}", one.prompts) for name, one in calibration.slices.items()]
    shows = {trait: int(rows.sum()) for trait, rows in contrast.shows.items()} if contrast else {}
    fewest = sorted(shows.items(), key=lambda one: one[1])[:1]
    counts += [(f"labelled as showing {name}", n) for name, n in fewest]
    tied = [one for one in evidence.achieved if one.tied] if evidence else []
    shared = "prompts share the score at the threshold, and none of them may fire: the rate is lower"
    return [*leads.few(counts), *(f"{one.name}: {one.tied} {shared}." for one in tied)]


# --- thresholds ---------------------------------------------------------------------------------------


def _thresholds(found: _Found) -> Section:
    calibration, evidence = found.calibration, found.calibration.evidence
    achieved = {(one.kind, one.name): one for one in (evidence.achieved if evidence else ())}
    rows = [
        [*_where(one, calibration), *_held(achieved.get((one.kind, one.name))), *_shown(one, found.contrast)]
        for one in found.triggers
    ]
    head = ["", "threshold", "target", "fires on held-out prompts", "verdict"]
    head += ["fires on prompts that show it"] if found.contrast else []
    return Section("Thresholds", [Table(head, rows), Text(SCORES), Text(VERDICTS)])


def _where(one: Trigger, calibration: Calibration) -> list[Cell]:
    read = " and ".join(f"{c.trait}, layer {c.layer}" for c in one.conditions)
    limits = "; ".join(_limit(c) for c in one.conditions) or "–"
    spans = "; ".join(text for c in one.conditions if (text := _bounds(*_span(calibration, c))))
    slices = "".join(f", set by {c.slice}" for c in one.conditions if c.slice)
    return [_named(one.kind, one.name, read), Cell(limits, spans + slices)]


def _named(kind: str, name: str, read: str = "") -> Cell:
    if kind == "set":
        return Cell("all enforced policies")
    return Cell(f"{kind} {name}", read)


def _limit(condition: CompiledCondition) -> str:
    return f"{'≤ ' if condition.fires == 'below' else ''}{condition.threshold:.2f}"


def _bounds(low: float, high: float) -> str:
    if low == high:
        return ""
    ends = (f"{end:.2f}" if isfinite(end) else "open" for end in (low, high))
    return f"[{', '.join(ends)}]"


def _span(calibration: Calibration, condition: CompiledCondition) -> tuple[float, float]:
    """The interval of a threshold in scores: that of the population that set it. A given score has none."""
    known = calibration.populations(condition.trait, condition.layer or 0)
    if known is None or condition.fpr is None:
        return condition.threshold, condition.threshold
    own = known.slices[condition.slice] if condition.slice else known.benign
    low, high = own.span(condition.fpr, "upper" if condition.fires == "above" else "lower")
    return known.benign.standardise(low), known.benign.standardise(high)


def _held(one: Achieved | None) -> list[Cell]:
    if one is None:
        return [*[Cell("–")] * 2, Cell("not measured", tone=leads.tone_of("not measured"))]
    verdict, share = leads.rate(one), percent(Estimate(one.rate, one.low, one.high))
    return [
        Cell("–" if one.fpr is None else f"{100 * one.fpr:.3g} %"),
        Cell(f"{share.text} ({one.fired} of {one.n})", share.small),
        Cell(verdict or "–", tone=leads.tone_of(verdict)),
    ]


def _shown(one: Trigger, contrast: Contrast | None) -> list[Cell]:
    """How often it fires on labelled prompts; nothing if there are none at all."""
    if contrast is None:
        return []
    own = contrast.of([condition.trait for condition in one.conditions])
    return [Cell("–") if own is None else percent(rate(one.fired(own)))]


def _slices(calibration: Calibration) -> Iterator[Section]:
    if not calibration.slices:
        return
    rows = [
        [_named(one.kind, one.name), Cell(name), *_held(one)]
        for name, own in calibration.slices.items()
        for one in own.achieved
    ]
    files = [
        [
            *(Cell(name), Cell(one.source), Cell(str(one.prompts)), Cell(str(one.duplicates))),
            *(Cell(str(one.skipped)), Cell(one.source_sha256[:12])),
        ]
        for name, one in calibration.slices.items()
    ]
    holds = "Thresholds hold for every slice" if calibration.worst_slice else "Slices set no threshold"
    counts = ("slice", "file", "prompts", "duplicates", "unreadable", "hash")
    head = ("", "slice", "target", "fires", "verdict")
    yield Section("Slices", [Text(f"{holds}."), Table(head, rows), Table(counts, files)])


# --- scores -------------------------------------------------------------------------------------------


def _scores(found: _Found) -> Section:
    drawings = [_place(found, trait, layer) for trait, layer in found.places()]
    return Section("Scores", [Text(_legend(found.contrast)), *drawings])


def _legend(contrast: Contrast | None) -> str:
    benign = "Benign: the prompts that the thresholds come from."
    if contrast is None:
        return benign
    return (
        f"{benign} The prompts of {contrast.source} set no threshold. By layer: the median, and a band "
        "from the 5th to the 95th percentile."
    )


def _place(found: _Found, trait: str, layer: int) -> Drawn:
    table = found.calibration.probes[trait]
    slices = {name: one.probes.get(trait, {}).get(layer) for name, one in found.calibration.slices.items()}
    parts = [("benign", table[layer], GREY), *_coloured(slices)]
    parts.append((f"shows {trait}", found.showing(trait, layer), BLUE))
    shown = [Distribution(name, one, table[layer], colour) for name, one, colour in parts if one is not None]
    limits = found.limits(trait, layer)
    return Drawn(drawn(f"{trait} at layer {layer}", shown, limits, _layers(found, trait, layer)))


def _coloured(slices: Mapping[str, Benign | None]) -> list[tuple[str, Benign | None, str]]:
    return [(name, one, CYCLE[1 + i % (len(CYCLE) - 1)]) for i, (name, one) in enumerate(slices.items())]


def _layers(found: _Found, trait: str, layer: int) -> Layers | None:
    """How the labelled prompts stand out at every layer; None if there are too few, or one layer."""
    table = found.calibration.probes[trait]
    known = {at: own for at in table if (own := found.showing(trait, at)) is not None}
    if not known or len(table) < 2:
        return None
    showing = {at: Distribution(f"shows {trait}", own, table[at], BLUE) for at, own in known.items()}
    benign = {at: Distribution("benign", own, own, GREY) for at, own in table.items()}
    return Layers(benign, showing, layer)


# --- where it comes from ------------------------------------------------------------------------------


def _origin(calibration: Calibration) -> Section:
    model, evidence = calibration.fingerprint, calibration.evidence
    facts = [
        ("model", f"{model.architecture}, {model.layers} layers of {model.d_model}"),
        ("weights", model.weights[:12]),
        ("tokenizer", model.tokenizer[:12]),
        ("chat template", model.chat_template[:12]),
        ("vectors", calibration.vectors_sha256[:12]),
        ("calibration", calibration.sha256[:12]),
        *(("measured under", str(one.configuration)) for one in calibration.certificates),
    ]
    if evidence:
        facts += [
            ("benign prompts", f"{evidence.prompts} ({evidence.source_sha256[:12]}), seed {evidence.seed}"),
            ("left out", f"{evidence.duplicates} duplicates, {evidence.skipped} that cannot be read"),
            ("replies", f"{evidence.conversations} conversations, {evidence.tokens} tokens"),
        ]
    rows = [[Cell(name), Cell(value)] for name, value in facts]
    text = "A guard refuses this calibration for other weights, vectors or templates than these."
    return Section("What it is for", [Text(text), Table(("", ""), rows)])
