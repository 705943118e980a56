"""Judges, which score replies for traits and coherence. Found by name; importing needs no torch."""

from guardrail.extract.judges.asking import COHERENCE_RUBRIC, coherence_request, trait_request
from guardrail.extract.judges.finding import find_judge

__all__ = ["COHERENCE_RUBRIC", "coherence_request", "find_judge", "trait_request"]
