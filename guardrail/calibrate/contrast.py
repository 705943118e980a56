"""Prompts that show traits, read beside the benign ones, for people who look at a calibration."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from guardrail.calibrate.achieved import Trigger, achieved
from guardrail.calibrate.projections import Advance, Column, Projections, prompt_projections
from guardrail.calibrate.sample import BenignPrompt
from guardrail.calibration.evidence import Achieved
from guardrail.types import Probe

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject


@dataclass(frozen=True, slots=True)
class Contrast:
    """The projections of labelled prompts [n], and which of them show each trait [n]. Sets no threshold."""

    source: str
    projections: Projections = field(repr=False)
    shows: Mapping[str, NDArray[np.bool_]] = field(repr=False)

    def of(self, traits: Collection[str]) -> Projections | None:
        """The prompts that show one of these traits; None if none does."""
        own = [self.shows[trait] for trait in traits if trait in self.shows]
        rows = np.any(own, axis=0) if own else np.zeros(0, dtype=bool)
        if not rows.any():
            return None
        return Projections(self.projections.columns, self.projections.values[rows])

    def fired(self, triggers: Iterable[Trigger]) -> tuple[Achieved, ...]:
        """How often each fires on the prompts that show its trait. Those without such prompts are missing."""
        pairs = [(one, self.of([condition.trait for condition in one.conditions])) for one in triggers]
        return tuple(found for one, own in pairs if own is not None for found in achieved([one], own))


def contrast(
    source: str,
    subject: Subject,
    prompts: Sequence[tuple[BenignPrompt, Collection[str]]],
    probes: Mapping[Column, Probe],
    advance: Advance,
) -> Contrast:
    """Read prompts, each with the traits that it shows. Raises CalibrationError as for benign ones."""
    found = prompt_projections(subject, [prompt for prompt, _ in prompts], probes, advance)
    traits = sorted({trait for _, shown in prompts for trait in shown})
    shows = {trait: np.array([trait in shown for _, shown in prompts]) for trait in traits}
    return Contrast(source, found, shows)
