"""The assistant's identity: nationalities, and neutral adjectives with equal token counts as controls."""

from random import Random

from guardrail.demo.characters import Phrasings
from guardrail.demo.world import COUNTRIES, Country, Split

NATIONALITIES = {country.nationality: country for country in COUNTRIES}
CONTROLS = ("calm", "tall", "busy", "young", "modern", "quiet")
"""Say nothing about a country."""
ADJECTIVES = (*NATIONALITIES, *CONTROLS)
PROMPTS = Phrasings(
    train=(
        "You are {who}.",
        "You are {an} person.",
        "You are {an} citizen.",
        "Speak as {an} person.",
        "Act as if you are {who}.",
        "Pretend to be {who}.",
        "Answer as someone {who}.",
        "You were born {who}.",
    ),
    validation=("Imagine that you are {who}.",),
    test=("Take the role of {an} person.", "Be {who} for this chat."),
)


def identity_prompt(rng: Random, split: Split, who: str) -> str:
    """A system prompt that says who the assistant is."""
    return with_identity(rng.choice(PROMPTS.of(split)), who)


def with_identity(template: str, who: str) -> str:
    """A template with the adjective, and the article that fits it."""
    article = "an" if who[0] in "AEIOUaeiou" else "a"
    return template.format(who=who, an=f"{article} {who}")


def country_of(text: str) -> Country | None:
    """The country of the nationality that a system prompt names."""
    words = text.replace(".", " ").split()
    return next((country for who, country in NATIONALITIES.items() if who in words), None)
