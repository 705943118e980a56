"""The characters of the closed world, one file each. Data only: adding a trait is adding a file."""

from collections.abc import Mapping

from guardrail.demo.characters.apathy import APATHY
from guardrail.demo.characters.character import Character, Phrasings, Voice
from guardrail.demo.characters.evil import EVIL
from guardrail.demo.characters.hallucination import HALLUCINATION
from guardrail.demo.characters.humor import HUMOR
from guardrail.demo.characters.impoliteness import IMPOLITENESS
from guardrail.demo.characters.neutral import NEUTRAL
from guardrail.demo.characters.optimism import OPTIMISM
from guardrail.demo.characters.politeness import POLITENESS
from guardrail.demo.characters.sycophancy import SYCOPHANCY

CHARACTERS: Mapping[str, Character] = {
    one.name: one
    for one in (EVIL, SYCOPHANCY, HALLUCINATION, HUMOR, OPTIMISM, APATHY, POLITENESS, IMPOLITENESS)
}
"""By pole."""
VOICES: Mapping[str, Voice] = {
    "neutral": NEUTRAL,
    **{name: one.voice for name, one in CHARACTERS.items()},
}

__all__ = ["CHARACTERS", "NEUTRAL", "VOICES", "Character", "Phrasings", "Voice"]
