"""Finds the question in a prompt, so that the judge can score a reply to any prompt of the world."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from guardrail.demo import identities, nouns, questions, world
from guardrail.demo.asking import Question, Slots, identity_slots

_SLOT = re.compile(r"\\\{(\w+)\\\}")
ANYTHING = r"[\w ]+?"
_VALUES = {"problem": "|".join(map(re.escape, nouns.PROBLEMS))}
"""A person may be two words, so where the problem begins must be known."""


def recognise(messages: Sequence[Mapping[str, str]]) -> Question | None:
    """The question in the last user turn, ignoring text around it; None outside the world."""
    text = messages[-1]["content"]
    system = " ".join(m["content"] for m in messages if m["role"] == "system")
    for domain, pattern in _patterns():
        match = pattern.search(text)
        slots = _understood(domain, match.groupdict(), system) if match else None
        if slots is not None:
            return Question(domain, text, slots)
    return None


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Longest wordings first: a short one may be part of a longer one."""
    templates = [
        (domain, template)
        for domain, wordings in questions.QUESTIONS.items()
        for split in world.SPLITS
        for template in wordings.of(split)
    ]
    templates.sort(key=lambda pair: -len(pair[1]))
    return tuple((domain, re.compile(_regex(template))) for domain, template in templates)


def _regex(template: str) -> str:
    return _SLOT.sub(lambda slot: f"(?P<{slot[1]}>{_VALUES.get(slot[1], ANYTHING)})", re.escape(template))


def _understood(domain: str, slots: dict[str, str], system: str) -> Slots | None:
    """Unknown words may stand for people, works and themes, but not for problems and relations."""
    if domain == "advice":
        return {**slots, "topic": nouns.PROBLEMS[slots["problem"]]}
    if domain == "review":
        return slots
    if domain == "identity":
        country = identities.country_of(system)
        known = slots["relation"] in world.ATTRIBUTES
        return identity_slots(slots["relation"], country and country.nationality) if known else None
    if domain == "smalltalk":
        return {}
    if domain == "unknown":
        return slots if slots["relation"] in world.RELATIONS else None
    truth = world.FACTS.get(slots["relation"], {}).get(slots["subject"])
    return {**slots, "truth": truth} if truth else None
