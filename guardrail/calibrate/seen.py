"""Finds benign prompts that a probe was fitted on: scores of those are lower than scores of fresh prompts."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.calibrate.sample import BenignPrompt
from guardrail.extract.fit.rows import digest, text_of
from guardrail.vectors.values import TraitVectors


def seen(vectors: TraitVectors, prompts: Sequence[BenignPrompt]) -> list[str]:
    """The names of the prompts that any trait of the file was fitted on."""
    known = {one for fit in vectors.provenance.fits.values() for one in fit.prompts}
    return [prompt.name for prompt in prompts if digest(text_of(prompt.messages)) in known]
