"""What a gate will do: the conditions to measure under, and what cannot be measured, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.evaluation.capability import MultipleChoice, read_questions
from guardrail.extract.workload import Workload
from guardrail.train.gate.conditions import Condition, as_trained, plain, triggered
from guardrail.train.gate.loading import PersonaFile
from guardrail.train.gate.observing import Observer
from guardrail.train.gate.policy import PersonaPolicy
from guardrail.train.gate.triggers import Trigger, data_triggers, read_triggers
from guardrail.train.gate.wording import rows_aside
from guardrail.traits import TraitDefinition

FEWEST = 2
NO_TRIGGERS = (
    "no triggers are tried, so a trait that shows only in a certain context would not be seen; name some "
    "under `triggers`"
)
NO_DATA = "--data was not given"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlan:
    """conditions: the first is `plain`, if a trait is limited. missing: (condition, why not measured)."""

    file: PersonaFile
    definitions: Sequence[TraitDefinition]
    conditions: Sequence[Condition]
    missing: Sequence[tuple[str, str]]
    choices: Sequence[MultipleChoice]
    held_out: Path | None
    data: Path | None
    notes: Sequence[str]

    @property
    def policy(self) -> PersonaPolicy:
        """The policy."""
        return self.file.policy

    @property
    def observer(self) -> Observer:
        """What observes both models."""
        return Observer(
            conditions=self.conditions,
            judged=self.policy.judged,
            settings=self.policy.replies,
            choices=self.choices,
            held_out=self.held_out,
        )

    def workload(self, rows: int) -> Workload:
        """Of both models together; `rows` is the largest batch. Without the screening of data."""
        judged, samples = self.policy.judged, self.policy.replies.samples
        scored = sum(len(one.prompts[trait]) for one in self.conditions for trait in judged)
        coherent = sum(len(self.conditions[0].prompts[t]) for t in judged) if self.policy.coherence else 0
        return Workload(
            replies=2 * samples * sum(len(one.asked(judged)) for one in self.conditions),
            max_new_tokens=self.policy.replies.max_new_tokens,
            judged=2 * samples * (scored + coherent),
            read=2 * sum(len(asked) for one in self.conditions for asked in one.prompts.values()),
            batch=rows,
        )

    @classmethod
    def of(
        cls,
        file: PersonaFile,
        definitions: Sequence[TraitDefinition],
        data: Path | None = None,
    ) -> GatePlan:
        """definitions: of the policy's traits. Raises ConfigError for files that cannot be read."""
        policy, questions = file.policy, file.file("capability", "questions")
        named = file.file("triggers", "prompts")
        given = read_triggers(named) if named else []
        planned = _conditions(policy, definitions, given, data) if policy.traits else _Conditions()
        return cls(
            file=file,
            definitions=definitions,
            conditions=planned.found,
            missing=planned.missing,
            choices=read_questions(questions) if questions else (),
            held_out=file.file("held_out_loss", "conversations"),
            data=data,
            notes=planned.notes,
        )


@dataclass(frozen=True, slots=True)
class _Conditions:
    found: Sequence[Condition] = ()
    missing: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def _conditions(
    policy: PersonaPolicy,
    definitions: Sequence[TraitDefinition],
    given: Sequence[Trigger],
    data: Path | None,
) -> _Conditions:
    first, wanted = plain(definitions), policy.triggers
    if wanted is None:
        return _Conditions([first], notes=[NO_TRIGGERS])
    found = [first, *(triggered(first, one, wanted.questions) for one in given)]
    if wanted.from_data is None:
        return _Conditions(found)
    if data is None:
        return _Conditions(found, [("triggers of the data", NO_DATA)])
    own = data_triggers(data, wanted.from_data)
    first_aside = min(own.aside, default=0)
    notes = rows_aside(f"triggers of {data.name}", Counter(own.aside.values()), first_aside)
    found += [triggered(first, one, wanted.questions) for one in own.systems]
    if len(own.prompts) < FEWEST:
        few = ("prompts of the data", f"{data} has {len(own.prompts)} prompts that can be read")
        return _Conditions(found, [few], notes)
    return _Conditions([*found, as_trained(list(policy.traits), own.prompts)], notes=notes)
