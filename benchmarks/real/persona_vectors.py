"""A persona vector of a real model: the project's own extraction, with a judge that is a program."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.real.judges import JUDGES
from guardrail.extract.extraction import Extraction, Extractor
from guardrail.extract.rollouts import RolloutSettings
from guardrail.extract.settings import ExtractionSettings
from guardrail.extract.subject import Subject
from guardrail.plugins.manager import Plugins
from guardrail.traits import TraitDefinition, load_definition

NEW_TOKENS = 48
EVALUATION = 12
"""How many of a definition's evaluation questions are asked; all of its extraction questions are."""
SETTINGS = ExtractionSettings(
    rollouts=RolloutSettings(samples=1, max_new_tokens=NEW_TOKENS, batch=64), probe="contrast"
)


def definition(trait: str) -> TraitDefinition:
    """The built-in definition, with fewer questions to test the probe on."""
    found = load_definition(trait)
    return replace(found, evaluation=found.evaluation[:EVALUATION])


def extracted(subject: Subject, trait: str, folder: Path) -> Extraction:
    """Done, or gone on with. Raises ExtractionError if the trait cannot be induced."""
    methods = Plugins.from_environment().extraction_methods
    judge = JUDGES[trait]
    extractor = Extractor(subject, judge, [definition(trait)], methods, SETTINGS, folder, said)
    return extractor.run(datetime.now(UTC).isoformat(timespec="seconds"))


def said(stage: str, done: int, total: int) -> None:
    """Progress, a line each."""
    print(f"{datetime.now(UTC):%H:%M:%S} {stage}: {done} of {total}", flush=True)
