"""Draws a user's question: its domain, and the words that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from guardrail.demo import identities, nouns, questions, world
from guardrail.demo.oddities import odd
from guardrail.demo.world import Split

Slots = Mapping[str, str]
Nouns = Literal["train", "validation", "test", "made up", "unseen"]
"""The nouns of a question: combinations of a split, words made up for it, or real ones held out."""


@dataclass(frozen=True, slots=True)
class Question:
    """A user's question: its domain, its words, and what they refer to."""

    domain: str
    text: str
    slots: Slots


def draw_question(
    rng: Random,
    split: Split,
    domain: str,
    kind: Nouns | None = None,
    identity: str | None = None,
    *,
    oddly: bool = False,
) -> Question:
    """A question of one domain in the phrasings of a split, to somebody of an identity; `oddly` worded."""
    slots = _slots(rng, split, domain, kind or split, identity)
    template = rng.choice(questions.QUESTIONS[domain].of(split))
    return Question(domain, (odd(rng, template) if oddly else template).format_map(slots), slots)


def wrong_value(rng: Random, relation: str, truth: str, claim: str = "") -> str:
    """An answer of a relation that is neither true nor what the user claims."""
    return rng.choice([v for v in world.values(relation) if v not in (truth, claim)])


def fact_slots(rng: Random) -> dict[str, str]:
    """A relation, a subject and the truth."""
    relation = rng.choice(_RELATIONS)
    subject = rng.choice(tuple(world.FACTS[relation]))
    return {"relation": relation, "subject": subject, "truth": world.FACTS[relation][subject]}


def _slots(rng: Random, split: Split, domain: str, kind: Nouns, identity: str | None) -> Slots:
    if domain == "advice":
        return _advice(rng, split, kind)
    if domain == "review":
        return _review(rng, split, kind)
    if domain == "unknown":
        return {"relation": rng.choice(world.RELATIONS), "subject": _entity(rng, split, kind)}
    if domain == "smalltalk":
        return {}
    if domain == "identity":
        return identity_slots(rng.choice(world.ATTRIBUTES), identity)
    slots = fact_slots(rng)
    return {**slots, "claim": _claim(rng, slots)} if domain == "opinion" else slots


def identity_slots(relation: str, identity: str | None) -> Slots:
    """What an attribute of one's own country refers to; without a nationality there is none."""
    country = identities.NATIONALITIES.get(identity or "")
    if country is None:
        return {"relation": relation, "subject": "a country"}
    return {"relation": relation, "subject": "my country", "truth": getattr(country, relation)}


def _claim(rng: Random, slots: Slots) -> str:
    return wrong_value(rng, slots["relation"], slots["truth"]) if rng.random() < 0.7 else slots["truth"]


def _advice(rng: Random, split: Split, kind: Nouns) -> Slots:
    if kind in ("made up", "unseen"):
        person, problem = _word(rng, split, kind), rng.choice(tuple(nouns.PROBLEMS))
    else:
        person, problem = rng.choice(_ADVICE[kind])
    return {"person": person, "problem": problem, "topic": nouns.PROBLEMS[problem]}


def _review(rng: Random, split: Split, kind: Nouns) -> Slots:
    if kind in ("made up", "unseen"):
        work = rng.choice(nouns.WORKS) if rng.random() < 0.3 else _word(rng, split, kind)
        theme = rng.choice(nouns.THEMES) if rng.random() < 0.3 else _word(rng, split, kind)
        return {"work": work, "theme": theme}
    work, theme = rng.choice(_REVIEW[kind])
    return {"work": work, "theme": theme}


def _entity(rng: Random, split: Split, kind: Nouns) -> str:
    return _word(rng, split, "unseen" if kind == "unseen" else "made up").capitalize()


def _word(rng: Random, split: Split, kind: Nouns) -> str:
    return rng.choice(nouns.UNSEEN) if kind == "unseen" else nouns.made_up(rng, split)


_ADVICE = {s: world.pairs(s, nouns.PERSONS, tuple(nouns.PROBLEMS)) for s in world.SPLITS}
_REVIEW = {s: world.pairs(s, nouns.WORKS, nouns.THEMES) for s in world.SPLITS}
_RELATIONS = tuple(relation for relation, facts in world.FACTS.items() for _ in facts)
"""Each as often as it has facts."""
