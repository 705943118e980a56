"""The report on shadow policies."""

from __future__ import annotations

from collections.abc import Mapping

from guardrail.evaluation.shadow import PolicyShadow, Shadow
from guardrail.report.leads import few
from guardrail.report.page import Block, Cell, Lead, Page, Section, Table, Text, percent

HEAD = (
    *("policy", "traits", "records", "fired", "as a shadow"),
    *("would have done", "alone", "beside enforced ones"),
)


def page(found: Shadow, log: str) -> Page:
    """What the policies in an audit log did, and what shadow policies would have done."""
    rows = [[Cell(name), *_row(one)] for name, one in found.policies.items()]
    text = (
        "Alone: prompts that only this policy would act on if it were enforced. Intervals are 95 % "
        "(Clopper-Pearson), and hold for traffic like that of this log."
    )
    blocks: list[Block] = [Text(text), Table(HEAD, rows)]
    told = {name: one for name, one in found.policies.items() if one.agreement}
    if told:
        blocks.append(
            Table(("policy", "labelled", "precision", "TPR", "FPR"), [_told(n, o) for n, o in told.items()])
        )
    changed = percent(found.changed)
    return Page(
        title="What shadow policies would have done",
        subtitle=f"{log}: {found.evaluated} evaluated requests of {found.records}",
        sections=[Section("Policies", blocks)],
        notes=[*few([("evaluated requests", found.evaluated)]), *found.notes],
        lead=Lead(f"Enforcing the shadows would change {changed.text} {changed.small} of the actions."),
    )


def _row(one: PolicyShadow) -> list[Cell]:
    return [
        *(
            Cell(", ".join(one.traits)),
            Cell(str(one.evaluated)),
            percent(one.fired),
            Cell(str(one.fired_as_shadow)),
        ),
        *(Cell(_counts(one.would)), Cell(str(one.alone)), Cell(_counts(one.beside))),
    ]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "–"


def _told(name: str, one: PolicyShadow) -> list[Cell]:
    assert one.agreement is not None
    told = one.agreement
    return [
        Cell(name),
        Cell(str(told.labelled)),
        percent(told.precision),
        percent(told.tpr),
        percent(told.fpr),
    ]
