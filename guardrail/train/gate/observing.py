"""What the gate takes from each of the two models: projections, replies, answers and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from guardrail.engines import Continuation
from guardrail.errors import ConfigError
from guardrail.evaluation.capability import MultipleChoice, right
from guardrail.evaluation.losses import Told, reply_losses
from guardrail.extract.journal import Report, silent
from guardrail.extract.judges import scores as judged
from guardrail.extract.prompts import RolloutPrompt
from guardrail.extract.rollouts import row_seed
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Numbers
from guardrail.train.gate.conditions import Condition
from guardrail.train.gate.measured import Measured
from guardrail.train.gate.policy import Replies
from guardrail.train.screening.encoding import Encoder
from guardrail.train.screening.files import open_data
from guardrail.train.screening.rows import BadRow, sample

Said = Sequence[Sequence[Continuation]]
"""[questions][samples]"""
Scores = Sequence[Sequence[float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One model. replies: by condition and trait. None for what no limit asks for."""

    replies: Mapping[str, Mapping[str, Said]] = field(repr=False)
    right: Sequence[bool] | None
    losses: Numbers | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Observes models in the same way: the same prompts, seeds, questions and conversations."""

    conditions: Sequence[Condition]
    judged: Sequence[str]
    settings: Replies
    choices: Sequence[MultipleChoice] = ()
    held_out: Path | None = None

    def observe(
        self, subject: Subject, measured: Measured, name: str = "model", report: Report = silent
    ) -> Observation:
        """Replies are sampled, answers greedy. Raises ConfigError for conversations that cannot be read."""
        conditions = self.conditions if self.judged else ()
        replies: dict[str, Mapping[str, Said]] = {}
        for place, one in enumerate(conditions, 1):
            report(f"{name}: conditions replied to", place - 1, len(conditions))
            replies[one.name] = self._replies(subject, one, measured)
            report(f"{name}: conditions replied to", place, len(conditions))
        if self.choices:
            report(f"{name}: questions answered", 0, len(self.choices))
        return Observation(
            replies=replies,
            right=self._right(subject, measured) if self.choices else None,
            losses=_losses(subject, self.held_out, measured) if self.held_out else None,
        )

    def _right(self, subject: Subject, measured: Measured) -> list[bool]:
        return measured(
            subject, {"choices": [repr(one) for one in self.choices]}, lambda: right(subject, self.choices)
        )

    def _replies(self, subject: Subject, condition: Condition, measured: Measured) -> Mapping[str, Said]:
        """Prompts that several traits share are replied to once."""
        rows = [(one, i) for one in condition.asked(self.judged) for i in range(self.settings.samples)]
        wanted = {"prompts": condition.sha256, "of": condition.name, "traits": list(self.judged)}
        found = measured.replies(
            subject,
            wanted | self.settings.model_dump(mode="json"),
            lambda: subject.replies(
                [one.messages for one, _ in rows],
                seeds=[row_seed(self.settings.seed, condition.name, one, i) for one, i in rows],
                max_new_tokens=self.settings.max_new_tokens,
                temperature=self.settings.temperature,
            ),
        )
        said: dict[object, list[Continuation]] = {}
        for (one, _), reply in zip(rows, found, strict=True):
            said.setdefault(one.messages, []).append(reply)
        return {trait: [said[one.messages] for one in condition.prompts[trait]] for trait in self.judged}


def _losses(subject: Subject, held_out: Path, measured: Measured) -> Numbers:
    rows = told(subject, held_out)
    return np.array(measured(subject, {"held out": rows}, lambda: reply_losses(subject, rows).tolist()))


def told(subject: Subject, path: Path) -> list[Told]:
    """The conversations of a file in tokens. Raises ConfigError with the place of one that cannot be read."""
    encode, found = Encoder(subject), list[Told]()
    for chunk in open_data(path).chunks():
        for number, value in zip(chunk.numbers, chunk.values, strict=True):
            try:
                if isinstance(value, BadRow):
                    raise value
                found += [(one.prompt, one.reply) for one in encode(sample(value))]
            except BadRow as error:
                raise ConfigError(f"{path}:{number}: {error}") from error
    if len(found) < 2:
        raise ConfigError(f"{path}: {len(found)} replies; a loss with an interval needs at least 2")
    return found


def scored(
    asked: Sequence[RolloutPrompt], said: Said, score: Callable[[judged.Said], list[float | None]]
) -> Scores:
    """[questions][samples]: what `score` says of all replies at once."""
    found = iter(score([(one, reply) for one, row in zip(asked, said, strict=True) for reply in row]))
    return [[next(found) for _ in row] for row in said]
