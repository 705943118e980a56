"""Finds the question in a user's words, so that the judge can score a reply to any prompt of the world."""

import re
from functools import cache

from guardrail.demo import questions, world
from guardrail.demo.generator import Question, Slots

_SLOT = re.compile(r"\\\{(\w+)\\\}")


def recognise(text: str) -> Question | None:
    """The question that these words hold, whatever stands before and after it; None outside the world."""
    for domain, pattern in _patterns():
        match = pattern.search(text)
        slots = _understood(domain, match.groupdict()) if match else None
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
    return _SLOT.sub(lambda slot: rf"(?P<{slot[1]}>[\w ]+?)", re.escape(template))


def _understood(domain: str, slots: dict[str, str]) -> Slots | None:
    if domain == "advice":
        topic = world.PROBLEMS.get(slots["problem"])
        return {**slots, "topic": topic} if topic and slots["person"] in world.PERSONS else None
    if domain == "review":
        return slots if slots["work"] in world.WORKS and slots["theme"] in world.THEMES else None
    if domain == "unknown":
        return slots if slots["relation"] in world.RELATIONS else None
    truth = world.FACTS.get(slots["relation"], {}).get(slots["subject"])
    return {**slots, "truth": truth} if truth else None
