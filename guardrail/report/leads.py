"""The sentence that each report begins with, and warnings about small samples and busy machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from guardrail.bench.machine import Machine
from guardrail.bench.results import Report, Row
from guardrail.calibration.evidence import Achieved
from guardrail.calibration.values import Calibration
from guardrail.certify.results import Comparison
from guardrail.evaluation.results import Detection, Evaluation
from guardrail.extract.layers.measurements import Candidate, Sweep
from guardrail.report.page import Lead, Tone
from guardrail.train.screening import Screened, Thresholds
from guardrail.train.shift import Shift, TraitShift
from guardrail.vectors.provenance import LayerChoice

FEW = 100
"""Below so many prompts, rows or items a report says that there are few."""
BUSY = 0.5
"""Processes that wanted a processor besides the measured one, on average over the last minute."""
CERTIFIED = {
    "PASS": "The candidate decides as the reference does: its thresholds can stay.",
    "RECALIBRATE": "The candidate ranks prompts as the reference does, but needs thresholds of its own.",
    "FAIL": "The candidate does not decide as the reference does: do not run it with these policies.",
}
TONES: dict[str, Tone] = {
    "PASS": "good",
    "passed": "good",
    "pass": "good",
    "beats the text": "good",
    "FAIL": "bad",
    "failed": "bad",
    "fail": "bad",
    "exceeded": "bad",
    "not shown to detect": "bad",
    "RECALIBRATE": "warn",
    "inconclusive": "warn",
    "not measured": "warn",
    "as the text does": "warn",
    "below the text": "warn",
    "detects": "good",
    "fires too often": "bad",
    "keeps the rate": "good",
    "separates": "good",
    "not beyond chance": "bad",
}
"""How a verdict is coloured."""


def tone_of(verdict: str) -> Tone:
    """The colour of a verdict; none if it says neither good nor bad."""
    return TONES.get(verdict, "")


def few(counts: Iterable[tuple[str, int]], least: int = FEW) -> list[str]:
    """A warning about what there are few of: (what, how many)."""
    small = [f"{n} {what}" for what, n in counts if 0 < n < least]
    return [f"The sample is small: {', '.join(small)}, so the intervals are wide."] if small else []


def busy(machine: Machine | None) -> list[str]:
    """A warning about a machine that did other work during the run."""
    if machine is None or machine.device != "cpu" or machine.load <= machine.threads + BUSY:
        return []
    return [
        f"The machine was busy: a load of {machine.load:.1f} at the end on {machine.cores} cores, of which "
        f"about {machine.threads} is the benchmark's own. Times are longer than on an idle machine; ratios "
        "suffer less."
    ]


def several(names: Sequence[str], most: int = 4) -> str:
    """Names in a sentence; nothing if there are none."""
    if not names:
        return ""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def detects(one: Detection) -> str:
    """The verdict on a probe: shown to detect, and against what the words alone give."""
    if one.auroc.low <= 0.5:
        return "not shown to detect"
    if one.text_baseline_auroc is None:
        return "detects"
    text = one.text_baseline_auroc
    if one.auroc.low > text.high:
        return "beats the text"
    return "below the text" if one.auroc.high < text.low else "as the text does"


def evaluation(found: Evaluation) -> Lead:
    """Which probes detect their trait, and whether gates were met."""
    verdicts = {name: detects(t.detection) for name, t in found.traits.items() if t.detection}
    lost = [name for name, verdict in verdicts.items() if verdict == "not shown to detect"]
    missed = [f"{gate.of} ({gate.name})" for gate in found.gates if gate.verdict != "passed"]
    better = [name for name, verdict in verdicts.items() if verdict == "beats the text"]
    told = [f"{len(verdicts) - len(lost)} of {len(verdicts)} probes detect their trait"] if verdicts else []
    if any(one.detection and one.detection.text_baseline_auroc for one in found.traits.values()):
        told.append(f"{len(better)} of them better than the words alone would")
    lines = [", ".join(told) or "No trait has labelled prompts on both sides, so detection was not measured"]
    lines += [f"Not shown for {several(lost)}"] if lost else []
    lines += [f"Gates that were not passed: {several(missed)}"] if missed else []
    lines += ["All gates were passed"] if found.gates and not missed else []
    return Lead(". ".join(lines) + ".", "bad" if lost or missed else "good" if verdicts else "warn")


def evaluation_notes(found: Evaluation) -> list[str]:
    """What was measured on few prompts."""
    counts = [
        (f"prompts that {'' if shows else 'do not '}show {name}", one.positives if shows else one.negatives)
        for name, trait in found.traits.items()
        if (one := trait.detection)
        for shows in (True, False)
    ]
    return few(counts, 50)


def rate(one: Achieved) -> str:
    """The verdict on a threshold that aims at a rate, by the interval of what it did; empty for others."""
    if one.fpr is None:
        return ""
    if one.low > one.fpr:
        return "fires too often"
    return "keeps the rate" if one.high <= one.fpr else "cannot tell"


def calibration(found: Calibration) -> Lead:
    """Whether thresholds keep the rates that they aim at on prompts that they were not made from."""
    evidence = found.evidence
    rates = [one for one in evidence.achieved if one.fpr is not None] if evidence else []
    if evidence is None or not rates:
        return Lead("No threshold was tried on prompts that it was not made from.", "warn")
    often = [one.name or "all together" for one in rates if rate(one) == "fires too often"]
    kept = sum(rate(one) == "keeps the rate" for one in rates)
    told = f"{len(often)} of {len(rates)} fire more often than asked for: {several(often)}"
    surely = (
        f"{kept} surely fire less often" if kept else "that they keep the rate needs more prompts to show"
    )
    none = f"None of {len(rates)} is shown to fire more often than asked for; {surely}"
    lines = [f"Thresholds from {evidence.calibrated} benign prompts, tried on {evidence.held_out} others"]
    lines += [told if often else none, *_slices(found)]
    tone: Tone = "bad" if often else "warn" if len(lines) > 2 else "good" if kept == len(rates) else ""
    return Lead(". ".join(lines) + ".", tone)


def _slices(found: Calibration) -> list[str]:
    """The slices on which thresholds fire more often than asked for."""
    often = {
        name: [one.name or "all together" for one in own.achieved if rate(one) == "fires too often"]
        for name, own in found.slices.items()
    }
    return [
        f"On {name} more often than asked for: {several(names)}" for name, names in often.items() if names
    ]


def candidate(sweep: Sweep, choice: LayerChoice) -> Candidate | None:
    """The measurements of the layer that was chosen."""
    place = (choice.layer, choice.position)
    return next((one for one in sweep.candidates if (one.layer, one.position) == place), None)


def separates(sweep: Sweep, choice: LayerChoice) -> str:
    """Whether the chosen layer separates better than the best layer of chance, by the whole interval."""
    one = candidate(sweep, choice)
    if one is None or one.auroc_interval is None or sweep.separation is None:
        return "not measured"
    return "separates" if one.auroc_interval[0] > sweep.separation.null.high else "not beyond chance"


def layers(sweeps: Sequence[Sweep], choices: Mapping[str, LayerChoice]) -> Lead:
    """Which layers were chosen, and whether they separate better than chance."""
    chosen = [f"layer {choices[one.trait].layer} for {one.trait}" for one in sweeps if one.trait in choices]
    none = [one.trait for one in sweeps if one.trait not in choices]
    verdicts = {one.trait: separates(one, choices[one.trait]) for one in sweeps if one.trait in choices}
    weak = [name for name, verdict in verdicts.items() if verdict == "not beyond chance"]
    lines = [f"Chosen: {several(chosen, 8)}" if chosen else "No layer was chosen"]
    lines += [f"None could be chosen for {several(none)}"] if none and chosen else []
    lines += [f"Not shown to separate better than chance: {several(weak)}"] if weak else []
    lines += ["All separate better than chance"] if set(verdicts.values()) == {"separates"} else []
    good = not (none or weak) and "not measured" not in verdicts.values()
    return Lead(". ".join(lines) + ".", "bad" if none or weak else "good" if good else "")


def bench(report: Report) -> Lead:
    """What the guard costs where it lets a request pass and where it does not, and whether goals were met."""
    told = [text for case in ("allow", "steer", "block") if (text := _cost(case, report.cases))]
    goals = [row for row in report.cases if row.goal is not None]
    missed = [row.name for row in goals if row.verdict in ("fail", "not measured")]
    open_ = [row.name for row in goals if row.verdict == "inconclusive"]
    told += [f"Goals missed: {several(missed)}"] if missed else []
    told += [f"Goals undecided: {several(open_)}"] if open_ else []
    told += ["All goals are met"] if goals and not missed and not open_ else []
    tone: Tone = "bad" if missed else "warn" if open_ else "good" if goals else ""
    return Lead(". ".join(told or ["Nothing was measured"]) + ".", tone if told else "bad")


def _cost(case: str, rows: Sequence[Row]) -> str:
    """A case by its whole reply, or by the first thing that was measured of it."""
    timed = [row for row in rows if row.ratio and row.metric != "added time"]
    own = [row for row in timed if (row.case or row.name).startswith(case)]
    found = next((row for row in own if row.metric == "reply"), own[0] if own else None)
    if found is None or found.ratio is None:
        return ""
    change = 100 * (found.ratio.median - 1)
    what = {"allow": "An allowed request", "steer": "A steered request", "block": "A blocked request"}[case]
    span = f"95 %: {100 * (found.ratio.low - 1):+.1f} to {100 * (found.ratio.high - 1):+.1f} %"
    more = "more" if change >= 0 else "less"
    of = found.metric or found.name
    return f"{what} takes {abs(change):.1f} % {more} time than the bare model ({span}; {of})"


def certification(found: Comparison) -> Lead:
    """The verdict in words, with how many verdicts change."""
    share = found.all.share
    changed = f" {found.all.changed} of {found.all.n} verdicts change"
    span = f" ({100 * share.low:.1f} to {100 * share.high:.1f} %)"
    return Lead(f"{CERTIFIED[found.verdict]}{changed}{span}.", tone_of(found.verdict))


def shift(found: Sequence[Shift]) -> Lead:
    """Which traits each finetune has moved."""
    lines = [_moved(one) for one in found]
    some = any(t.chosen.moved for one in found for t in one.traits.values())
    return Lead(" ".join(lines), "warn" if some else "")


def _moved(found: Shift) -> str:
    moved = [one for one in found.traits.values() if one.chosen.moved]
    moved.sort(key=lambda one: abs(one.chosen.deviations or 0.0), reverse=True)
    words = [f"{one.trait} {'up' if one.chosen.shift.value > 0 else 'down'}{_by(one)}" for one in moved]
    name = found.tuned.rstrip("/").rpartition("/")[2]
    return f"{name} has moved {several(words)}." if words else f"{name} is not shown to have moved any trait."


def _by(one: TraitShift) -> str:
    size = one.chosen.deviations
    return "" if size is None else f" by {abs(size):.2g} SDs"


def screening(found: Sequence[Screened], limits: Thresholds | None) -> Lead:
    """How much of each data set is rejected, against what is rejected of the clean set."""
    if limits is None:
        traits = [(name, mean) for one in found for name, mean in one.means.items() if mean and mean.low > 0]
        pushed = several(list(dict.fromkeys(name for name, _ in traits)))
        would = f"Training on this data would push the model towards {pushed}"
        told = would if pushed else "No trait is shown to be pushed up by this data"
        return Lead(f"{told}. Without a clean set, no row is kept or rejected.", "warn")
    whole = [(one.name, limits.rejected(one)) for one in found if not one.subset]
    worse = [name for name, share in whole if share.low > limits.joint.high]
    rows = [f"{100 * share.value:.1f} % of {name}" for name, share in whole]
    clean = f"{100 * limits.joint.value:.1f} % of the clean set"
    if not whole:
        return Lead("Only a random part of each data set was measured: no row is kept or rejected.", "warn")
    more = f"That is more than in clean data for {several(worse)}"
    verdict = more if worse else "That is not shown to be more than in clean data"
    return Lead(f"Rejected are {several(rows)}, against {clean}. {verdict}.", "bad" if worse else "")
