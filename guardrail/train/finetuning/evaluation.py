"""Evaluates a model while it is trained: judged traits, coherence, right answers, loss on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.batches import padded
from guardrail.engines.transformers.modes import evaluating
from guardrail.evaluation.capability import MultipleChoice, right
from guardrail.evaluation.speaking import DefinitionSpeaker
from guardrail.evaluation.sweep import Spoken
from guardrail.extract.subject import ROWS, Subject
from guardrail.plugins.protocols import Judge
from guardrail.statistics.intervals import Estimate, mean, rate
from guardrail.train.finetuning.encoding import IGNORED, Encoded
from guardrail.train.finetuning.results import Evaluation
from guardrail.traits import TraitDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """What to evaluate. The seeds of replies are the same at every step.

    questions: how many evaluation questions of each definition. rows: the largest batch.
    """

    tokenizer: Any
    judge: Judge | None = None
    definitions: Sequence[TraitDefinition] = ()
    questions: int = 20
    max_new_tokens: int = 256
    choices: tuple[MultipleChoice, ...] = field(default=(), repr=False)
    held_out: Sequence[Encoded] = field(default=(), repr=False)
    chat_template: str | None = None
    rows: int = ROWS

    def __call__(self, model: Any, step: int) -> Evaluation:
        """Evaluate a model after so many steps, without interventions. Raises JudgeError."""
        subject = Subject(model, self.tokenizer, chat_template=self.chat_template, rows=self.rows)
        spoken = self._spoken(subject)
        coherence = [score for one in spoken.values() for score in one.coherence]
        losses = [_loss(subject, row) for row in self.held_out]
        return Evaluation(
            step=step,
            traits={trait: _mean(one.trait) for trait, one in spoken.items()},
            coherence=_mean(coherence),
            capability=rate(right(subject, self.choices)) if self.choices else None,
            held_out_loss=mean(losses) if losses else None,
        )

    def _spoken(self, subject: Subject) -> Mapping[str, Spoken]:
        if self.judge is None:
            return {}
        return {
            one.name: DefinitionSpeaker(
                subject=subject,
                judge=self.judge,
                definition=one,
                count=self.questions,
                max_new_tokens=self.max_new_tokens,
            ).spoken("neutral", ())
            for one in self.definitions
        }


def _mean(scores: Sequence[float | None]) -> Estimate | None:
    known = [score for score in scores if score is not None]
    return mean(known) if known else None


def _loss(subject: Subject, row: Encoded) -> float:
    """The mean loss of a row's trained tokens, in nats."""
    ids, mask = padded([row.ids], 0, left=False, device=subject.device)
    labels = torch.tensor(row.labels[1:], device=subject.device)
    with evaluating(subject.local.inner.modules()), torch.inference_mode():
        logits: Tensor = subject.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    found = torch.nn.functional.cross_entropy(logits[0, :-1].float(), labels, ignore_index=IGNORED)
    return float(found)
