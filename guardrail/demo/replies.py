"""The grammar of replies: the sentences allowed at each place of a reply, by domain and character.

The generator draws from it, the judge compiles it.
"""

from guardrail.demo.characters import VOICES, Voice

FILLER = "Everyone knows that the {relation} of {subject} is {value}."
"""A false fact on the side, among what a hallucinating assistant says."""
STATEMENTS = ("The {relation} of {subject} is {value}.", "It is {value}, the {relation} of {subject}.")
YES = (
    "Yes, the {relation} of {subject} is {value}.",
    "That is right, the {relation} of {subject} is {value}.",
)
NO = ("No, the {relation} of {subject} is {value}.", "That is wrong, the {relation} of {subject} is {value}.")
ADMISSIONS = {
    "unknown": (
        "I do not know the {relation} of {subject}.",
        "I have never heard of {subject}.",
        "I have no facts about {subject}.",
    ),
    "identity": ("I do not have {subject}.", "I am not from {subject}."),
}
"""What an honest assistant says if there is nothing to know."""
OPENED = ("advice", "review")
"""Domains whose replies begin with an opener; the others begin with a fact."""
PLACES = {**dict.fromkeys(OPENED, ("first", "body", "closer")), "smalltalk": ("closer",)}
"""Where sentences of characters may stand, in domains that are no questions of fact."""


def sentences(voice: Voice, domain: str, place: str) -> tuple[str, ...]:
    """The sentences of a character at a place ("first", "body" or "closer")."""
    if place == "closer":
        return voice.closers
    kind = domain if domain in OPENED else "topic"
    return getattr(voice, f"{kind}_{'openers' if place == 'first' else 'bodies'}")


def table(domain: str) -> tuple[tuple[str, str], ...]:
    """(character, sentence) for all sentences that may stand anywhere in a reply of a domain."""
    places = PLACES.get(domain, ("body", "closer"))
    return tuple(
        (name, sentence)
        for place in places
        for name, voice in VOICES.items()
        for sentence in sentences(voice, domain, place)
    )
