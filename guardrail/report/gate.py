"""The report of `guardrail train gate`: whether the finetune may ship, and what that rests on."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.report.drawing import BLUE, GREY, ORANGE, RED, new, style, svg
from guardrail.report.page import Block, Cell, Drawn, Heading, Page, Section, Table, Text, estimate, percent
from guardrail.report.shift import details
from guardrail.train.gate import GateResult, PersonaFile, Sealed, Verdict
from guardrail.train.gate.conditions import PLAIN
from guardrail.train.gate.screening import DataFindings
from guardrail.train.gate.wording import conclusion, exceeded
from guardrail.train.shift import Shift

HEAD = ("what", "under", "limit", "change", "verdict", "")
COLOURS = {"passed": BLUE, "inconclusive": ORANGE, "failed": RED}
ORDER = ("failed", "not measured", "inconclusive", "passed")
MOST = 40
"""How many changes are drawn."""
MEANING = (
    "A limit holds if the whole 95 % interval of the change against the base is within it, and is exceeded "
    "if the whole interval is beyond it. In between it is inconclusive: more questions or samples would "
    "decide. Only limits that were shown to hold pass. Triggers that nobody thought of are not tested."
)
DRAWN = (
    "Each change with its 95 % interval, as a share of what is allowed. Beyond the line at 1 it is too much; "
    "below 0 it went the other way."
)


def page(found: GateResult, policy: PersonaFile, sealed: Sealed) -> Page:
    """The whole report."""
    base, tuned = found.names
    return Page(
        title=conclusion(found.verdicts),
        subtitle=f"{tuned}, a finetune of {base}, by {policy.path}",
        sections=[
            _limits(found.verdicts),
            *_shifts(found),
            *_data(found.data),
            _evidence(found, policy, sealed),
        ],
        notes=found.notes,
    )


def _limits(verdicts: Sequence[Verdict]) -> Section:
    first = sorted(verdicts, key=lambda one: ORDER.index(one.outcome))
    blocks: list[Block] = [Text(line) for line in exceeded(verdicts)]
    if drawn := [one for one in first if one.of_limit][:MOST]:
        blocks.append(Drawn(_changes(drawn), DRAWN))
    return Section("Limits", [*blocks, Table(HEAD, [_row(one) for one in first]), Text(MEANING)])


def _row(one: Verdict) -> list[Cell]:
    tone = "good" if one.passed else "bad"
    return [
        *(Cell(one.what), Cell(one.condition), Cell(one.limit), estimate(one.found)),
        *(Cell(one.outcome, tone=tone), Cell(one.why)),
    ]


def _changes(drawn: Sequence[Verdict]) -> str:
    with style():
        figure = new(9.2, 0.9 + 0.3 * len(drawn))
        axes = figure.subplots()
        for i, one in enumerate(drawn):
            if share := one.of_limit:
                axes.plot((share.low, share.high), (i, i), color=COLOURS[one.outcome], linewidth=2)
                axes.plot(share.value, i, "o", color=COLOURS[one.outcome], markersize=4)
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.axvline(1, color=RED, linewidth=1.2, linestyle="--")
        axes.set_yticks(range(len(drawn)), [f"{one.what} ({one.condition})" for one in drawn])
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.set(title="changes, as shares of what is allowed")
        return svg(figure, "every change as a share of what is allowed")


def _shifts(found: GateResult) -> list[Section]:
    """Plain questions in full, and one table of what triggers do."""
    plain = found.shifts.get(PLAIN)
    sections = [Section("Shift", details(plain, {}))] if plain else []
    others = {name: one for name, one in found.shifts.items() if name != PLAIN}
    return [*sections, _triggered(others)] if others else sections


def _triggered(shifts: dict[str, Shift]) -> Section:
    rows = [
        [
            Cell(name),
            Cell(trait),
            Cell(str(one.prompts)),
            estimate(one.chosen.shift),
            estimate(one.chosen.own),
        ]
        for name, shift in shifts.items()
        for trait, one in shift.traits.items()
    ]
    return Section("Shift under triggers", [Table(("under", "trait", "prompts", "shift", "own"), rows)])


def _data(found: DataFindings | None) -> list[Section]:
    if found is None:
        return []
    rows = [[Cell(trait), percent(share)] for trait, share in found.above.items()]
    aside = [
        [Cell(name), Cell(kind), Cell(str(count))]
        for name, kinds in (("training data", found.aside), ("clean set", found.clean_aside))
        for kind, count in kinds.items()
    ]
    return [
        Section(
            "Training data",
            [
                Text(f"{found.rows} rows were measured, and {found.clean_rows} of the clean set."),
                Table(("trait", "rows above the clean threshold"), rows),
                *([Heading("Rows set aside"), Table(("in", "reason", "rows"), aside)] if aside else []),
            ],
        )
    ]


def _evidence(found: GateResult, policy: PersonaFile, sealed: Sealed) -> Section:
    known = {
        "weights of the base": found.base.weights,
        "weights of the finetune": found.tuned.weights,
        "policy": policy.sha256,
        "training data": found.data.sha256 if found.data else "",
        "evidence": str(sealed.evidence),
        "head of the evidence": sealed.head,
    }
    rows = [[Cell(name), Cell(value)] for name, value in known.items() if value]
    told = f"guardrail audit verify {sealed.evidence} --head {sealed.head} checks that nothing was changed."
    return Section("Evidence", [Table(("", ""), rows), Text(told)])
