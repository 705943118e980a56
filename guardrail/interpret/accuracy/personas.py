"""Who the model is told to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.demo.identities import with_identity
from guardrail.errors import ConfigError
from guardrail.traits import TraitDefinition

TEMPLATE = "You are {an} student."
"""As in arXiv 2507.20936: an Asian student, a good student."""


@dataclass(frozen=True, slots=True)
class Persona:
    """A name, and the sentences that make the model it; none for the model as it is."""

    name: str
    text: str


NOBODY = Persona("none", "")


def identity(word: str, template: str = TEMPLATE) -> Persona:
    """`{who}` in the template is the word, `{an}` the word with its article. Raises ConfigError without."""
    return Persona(word, filled(template, word))


def filled(template: str, word: str) -> str:
    """The template with a word. Raises ConfigError if there is no place for it, or an unknown one."""
    try:
        text = with_identity(template, word)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"the template `{template}` may contain {{who}} and {{an}} only") from error
    if word not in text:
        raise ConfigError(f"the template `{template}` has no place for the word: write {{who}} or {{an}}")
    return text


def role(definition: TraitDefinition) -> Persona:
    """The first instruction that asks for a trait."""
    return Persona(definition.name, definition.instructions[0].positive)


def distinct(personas: Sequence[Persona]) -> list[Persona]:
    """The personas without repetitions. Raises ConfigError if two differ but share a name."""
    found: dict[str, Persona] = {}
    for one in personas:
        if found.setdefault(one.name, one) != one:
            raise ConfigError(f"two personas are called `{one.name}`")
    return list(found.values())
