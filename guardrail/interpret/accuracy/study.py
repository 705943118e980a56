"""Asks one model all items under every persona."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import NOBODY, Persona, distinct
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.accuracy.results import AccuracyResult, Effect, PersonaResult
from guardrail.interpret.accuracy.scoring import option_probabilities
from guardrail.interpret.forms import notes
from guardrail.interpret.resuming import Work
from guardrail.statistics.intervals import Numbers, mean, paired_difference, rate
from guardrail.statistics.permutation import false_discovery


def accuracy(
    asker: Asker,
    items: Sequence[Item],
    personas: Sequence[Persona],
    name: str,
    report: Report = silent,
    work: Path | None = None,
) -> AccuracyResult:
    """Accuracy without and with each persona, and the items on which they differ.

    An interrupted run in `work` is resumed. Raises ConfigError, and ExtractionError if `work` was begun with
    other items, personas or settings, or another model.
    """
    everyone = distinct([NOBODY, *personas])
    if len(items) < 2:
        raise ConfigError("accuracy needs at least two items")
    pairs = [(one, item) for one in everyone for item in items]
    each = option_probabilities(asker, pairs, work=Work(work, report))
    found = dict(zip((one.name for one in everyone), np.split(each, len(everyone)), strict=True))
    right = np.array([item.answer for item in items])
    plain = found[NOBODY.name]
    effects = _effects([found[one.name] for one in everyone[1:]], plain, right)
    return AccuracyResult(
        model=name,
        form=asker.form,
        scoring=asker.scoring,
        items=tuple(items),
        chance=float(np.mean([1 / len(item.options) for item in items])),
        personas=tuple(
            _persona(one, found[one.name], items, effect)
            for one, effect in zip(everyone, (None, *effects), strict=True)
        ),
        notes=tuple(notes(asker.subject, asker.form)),
    )


def _persona(
    persona: Persona, probabilities: Numbers, items: Sequence[Item], effect: Effect | None
) -> PersonaResult:
    answers = probabilities.argmax(1)
    hits = answers == [item.answer for item in items]
    subjects = np.array([item.subject for item in items])
    return PersonaResult(
        name=persona.name,
        text=persona.text,
        accuracy=rate(hits),
        by_subject={one: rate(hits[subjects == one]) for one in dict.fromkeys(subjects.tolist())},
        letters=tuple(np.bincount(answers, minlength=probabilities.shape[1]) / len(items)),
        effect=effect,
        answers=tuple(answers.tolist()),
    )


def _effects(found: Sequence[Numbers], plain: Numbers, right: np.ndarray) -> list[Effect]:
    if not found:
        return []
    before = plain.argmax(1) == right
    afters = [one.argmax(1) == right for one in found]
    p = [mcnemar(before, after) for after in afters]
    rows = np.arange(len(right))
    return [
        Effect(
            difference=paired_difference(before, after),
            changed=rate(one.argmax(1) != plain.argmax(1)),
            gained=int((after & ~before).sum()),
            lost=int((before & ~after).sum()),
            probability=mean(one[rows, right] - plain[rows, right]),
            p=p_one,
            q=float(q_one),
        )
        for one, after, p_one, q_one in zip(found, afters, p, false_discovery(p), strict=True)
    ]


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """Two-sided exact p of McNemar's test: of the items that changed, half should have become right."""
    from scipy.stats import binomtest

    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
