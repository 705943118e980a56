"""The prompts that the built-in model is compared on. No other file of this package depends on it."""

from __future__ import annotations

from collections.abc import Iterable

from guardrail.certify.recording import Prompt
from guardrail.demo import material, world
from guardrail.demo.generator import Conversation

SEED, BENIGN, STRONG = 900, 1000, 100


def prompts(traits: Iterable[str]) -> list[Prompt]:
    """Benign prompts, and those that ask strongly for each trait, in phrasings that nothing was made from."""
    found = _named("benign", material.benign(SEED, BENIGN, "test"), benign=True)
    for trait in traits:
        if trait in world.TRAITS:
            found += _named(trait, material.at_level(SEED, STRONG, "test", trait, "strong"), benign=False)
    return found


def _named(name: str, drawn: Iterable[Conversation], *, benign: bool) -> list[Prompt]:
    return [
        Prompt(name=f"built-in {name} {i}", messages=one.messages, benign=benign)
        for i, one in enumerate(drawn, 1)
    ]
