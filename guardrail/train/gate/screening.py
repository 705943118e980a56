"""Screens the training data of a finetune for the policy's traits, with the base and a clean set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.extract.subject import Subject
from guardrail.statistics.intervals import Estimate
from guardrail.train.gate.policy import DataLimits
from guardrail.train.gate.wording import rows_aside
from guardrail.train.screening import Screened, Screener, ScreeningSettings, thresholds_of, write
from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFindings:
    """above: by trait, the share of rows above the clean set's threshold.

    aside, clean_aside: rows that were set aside, by what is wrong with them. notes: the same in words.
    """

    sha256: str
    clean_sha256: str
    rows: int
    clean_rows: int
    above: Mapping[str, Estimate]
    aside: Mapping[str, int]
    clean_aside: Mapping[str, int]
    notes: Sequence[str]


def screened(
    base: Subject,
    vectors: TraitVectors,
    traits: Sequence[str],
    data: Path,
    clean: Path,
    limits: DataLimits,
    folder: Path,
    report: Report = silent,
) -> DataFindings:
    """Measure both sets. Raises ConfigError for data that cannot be read, or too small a clean set.

    Scores, and the rows that were set aside, are written to `clean` and `data` in the folder in any case.
    """
    settings = ScreeningSettings(form=limits.form, max_new_tokens=limits.max_new_tokens)
    screener = Screener(base, vectors, folder=folder, traits=traits, settings=settings)
    known, found = screener.screen(clean, report), screener.screen(data, report)
    for one, name in ((known, "clean"), (found, "data")):
        write(one, folder / name)
    if unusable := known.unusable or found.unusable:
        raise ConfigError(unusable)
    thresholds = thresholds_of(known, limits.share)
    return DataFindings(
        sha256=found.data.sha256(),
        clean_sha256=known.data.sha256(),
        rows=found.counts.measured,
        clean_rows=known.counts.measured,
        above=thresholds.above(found),
        aside=found.counts.aside,
        clean_aside=known.counts.aside,
        notes=[*_aside(known, "clean set"), *_aside(found, "training data")],
    )


def _aside(one: Screened, what: str) -> list[str]:
    first = min((number for number, _, _ in one.first_problems(1)), default=0)
    return rows_aside(what, one.counts.aside, first)
