"""Reports what shadow policies would have done, from an audit log: how often, and how accurately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from guardrail.errors import ConfigError
from guardrail.files.json_lines import parse_lines
from guardrail.plugins.audit import AuditRecord
from guardrail.statistics.intervals import Estimate, rate
from guardrail.types import Mode, Score


class _Label(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    audit_id: str
    label: Literal[0, 1] | bool | None = None
    labels: dict[str, Literal[0, 1] | bool] = {}


@dataclass(frozen=True, slots=True)
class Label:
    """A person's label for one audit record: whether policies should have fired, overall or by trait."""

    whole: bool | None
    traits: Mapping[str, bool] = field(default_factory=dict[str, bool])

    def of(self, traits: Iterable[str]) -> bool | None:
        """Whether a policy on these traits should have fired; None without a label."""
        known = [self.traits[trait] for trait in traits if trait in self.traits]
        return any(known) if known else self.whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Compares firing with labels, over the labelled records on which the policy was evaluated."""

    labelled: int
    precision: Estimate | None
    """The share of its firings that were right."""
    tpr: Estimate | None
    fpr: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyShadow:
    """One policy in the log. Rates have Clopper-Pearson intervals."""

    traits: tuple[str, ...]
    modes: Mapping[Mode, int]
    """The number of records by the policy's mode."""
    evaluated: int
    fired: Estimate
    fired_as_shadow: int
    would: Mapping[str, int]
    """For records in which it fired as a shadow: the action with all shadows enforced."""
    alone: int
    """Records in which it fired as a shadow and no enforced policy fired: enforcing it would add these."""
    beside: Mapping[str, int]
    """Records in which it fired as a shadow together with these enforced policies."""
    agreement: Agreement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """The report on an audit log. `changed`: records whose action would change if shadows were enforced."""

    records: int
    evaluated: int
    changed: Estimate | None
    would_action: Mapping[str, int]
    policies: Mapping[str, PolicyShadow]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def read_labels(path: Path) -> dict[str, Label]:
    """Audit id to label: `{"audit_id": "...", "label": 1}` or `{"audit_id": "...", "labels": {"evil": 0}}`.

    Raises ConfigError with every bad line, and for a repeated id.
    """
    found: dict[str, Label] = {}
    for place, line in parse_lines(path, _Label):
        if line.audit_id in found:
            raise ConfigError(f"{place}: the record {line.audit_id} is labelled twice")
        if (line.label is None) == (not line.labels):
            raise ConfigError(f"{place}: give `label` or `labels`")
        whole = None if line.label is None else bool(line.label)
        found[line.audit_id] = Label(whole, {trait: bool(label) for trait, label in line.labels.items()})
    return found


def shadowed(records: Iterable[AuditRecord], labels: Mapping[str, Label] | None = None) -> Shadow:
    """The report on each policy in the log. Raises ConfigError if the log has no evaluated request."""
    every = list(records)
    live = [record for record in every if record.decision.status == "evaluated"]
    if not live:
        raise ConfigError("the audit log contains no evaluated request")
    names = dict.fromkeys(score.policy for record in live for score in record.decision.scores)
    return Shadow(
        records=len(every),
        evaluated=len(live),
        changed=rate([r.decision.would_action != r.decision.action for r in live]),
        would_action=dict(Counter(r.decision.would_action for r in live)),
        policies={name: _policy(name, live, labels) for name in names},
        notes=tuple(_notes(every, live, labels)),
    )


def _notes(
    every: Sequence[AuditRecord], live: Sequence[AuditRecord], labels: Mapping[str, Label] | None
) -> list[str]:
    left = len(every) - len(live)
    notes = [f"{left} records were not evaluated (errors, unreadable input) and are left out"] if left else []
    if labels is None:
        return notes
    known = {record.id for record in live}
    if not (met := known & labels.keys()):
        raise ConfigError("no label matches a record of this audit log")
    if missing := len(labels) - len(met):
        notes.append(f"{missing} labels match no evaluated record of this log")
    return notes


def _policy(name: str, records: Sequence[AuditRecord], labels: Mapping[str, Label] | None) -> PolicyShadow:
    own = [(record, scores) for record in records if (scores := _scores(record, name))]
    traits = tuple(dict.fromkeys(score.trait for _, scores in own for score in scores))
    fired = [name in record.decision.fired for record, _ in own]
    ghosts = [r for (r, scores), hit in zip(own, fired, strict=True) if hit and scores[0].mode == "shadow"]
    beside = [_enforced(record) for record in ghosts]
    return PolicyShadow(
        traits=traits,
        modes=dict(Counter(scores[0].mode for _, scores in own)),
        evaluated=len(own),
        fired=rate(fired),
        fired_as_shadow=len(ghosts),
        would=dict(Counter(record.decision.would_action for record in ghosts)),
        alone=sum(not others for others in beside),
        beside=dict(Counter(other for others in beside for other in others)),
        agreement=_agreement([r for r, _ in own], fired, traits, labels) if labels is not None else None,
    )


def _scores(record: AuditRecord, policy: str) -> list[Score]:
    return [score for score in record.decision.scores if score.policy == policy]


def _enforced(record: AuditRecord) -> set[str]:
    """The policies that fired and were enforced."""
    enforced = {score.policy for score in record.decision.scores if score.mode == "enforce"}
    return enforced & set(record.decision.fired)


def _agreement(
    records: Sequence[AuditRecord], fired: Sequence[bool], traits: Sequence[str], labels: Mapping[str, Label]
) -> Agreement:
    told = [
        (hit, label)
        for r, hit in zip(records, fired, strict=True)
        if (label := _label(r, traits, labels)) is not None
    ]
    on_fired = [label for hit, label in told if hit]
    should = [hit for hit, label in told if label]
    should_not = [hit for hit, label in told if not label]
    return Agreement(
        labelled=len(told),
        precision=rate(on_fired) if on_fired else None,
        tpr=rate(should) if should else None,
        fpr=rate(should_not) if should_not else None,
    )


def _label(record: AuditRecord, traits: Sequence[str], labels: Mapping[str, Label]) -> bool | None:
    return labels[record.id].of(traits) if record.id in labels else None
