"""Activation patching between prompts that differ in a persona (Poonia and Jain 2025, arXiv 2507.20936)."""

from guardrail.interpret.patching.pairs import PairLine as PairLine
from guardrail.interpret.patching.pairs import load_pairs as load_pairs
from guardrail.interpret.patching.patches import Patch as Patch
from guardrail.interpret.patching.results import PatchResult as PatchResult
from guardrail.interpret.patching.sweep import PatchSettings as PatchSettings
from guardrail.interpret.patching.sweep import sweep as sweep
