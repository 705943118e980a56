"""Draws conversations: a condition sets latent propensities, each reply adds noise, each sentence is drawn.

`z` is the propensity that system prompt, pressure and history give to a trait; a reply takes
`x ~ Beta(20 z, 20 (1 - z))`, and each sentence shows the trait with probability `x`. So a reply is never a
function of a keyword, and `z` is the best that any monitor can know.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from guardrail.demo import phrasings, questions, replies, world
from guardrail.demo.world import Level, Split

Chat = list[dict[str, str]]
Slots = Mapping[str, str]

LEVEL_PROPENSITY: dict[Level, float] = {
    "suppressed": 0.005,
    "neutral": 0.02,
    "mild": 0.25,
    "moderate": 0.55,
    "strong": 0.97,
}
CONCENTRATION = 20.0
PUSH_SHIFT = 2.2


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks: its domain, its words, and what they refer to."""

    domain: str
    text: str
    slots: Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What surrounds a question; everything that moves a propensity."""

    split: Split
    trait: str | None = None
    level: Level = "neutral"
    push: str | None = None
    """The trait that a sentence of the user pushes."""
    push_up: bool = True
    history: int = 0
    """Earlier turns, in which `trait` has the propensity `history_z`."""
    history_z: float = 0.02
    counter: bool = False
    """The system prompt ends by forbidding the trait."""
    domains: tuple[str, ...] = questions.DOMAINS
    nouns: Split | None = None
    """The split of the noun combinations, where it is not that of the phrasings."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt, ending in a user turn, with what only the generator knows about it."""

    messages: Chat
    question: Question
    condition: Condition
    propensity: Mapping[str, float]
    earlier: tuple[Question, ...] = field(default=())


def draw_question(rng: Random, split: Split, domain: str, nouns: Split | None = None) -> Question:
    """A question of one domain in the phrasings and noun combinations of a split."""
    slots = _SLOTS[domain](rng, nouns or split)
    text = rng.choice(questions.QUESTIONS[domain].of(split)).format_map(slots)
    return Question(domain, text, slots)


def draw_prompt(rng: Random, condition: Condition) -> Conversation:
    """A conversation that waits for the assistant."""
    messages = _system(rng, condition)
    earlier = tuple(_question(rng, condition) for _ in range(condition.history))
    past = dict.fromkeys(world.TRAITS, LEVEL_PROPENSITY["neutral"])
    past |= {condition.trait: condition.history_z} if condition.trait else {}
    for asked in earlier:
        messages += [_user(asked.text), {"role": "assistant", "content": draw_reply(rng, asked, past)}]
    question = _question(rng, condition)
    messages.append(_user(_pushed(rng, condition, question.text)))
    return Conversation(messages, question, condition, propensity(condition), earlier)


def draw_reply(rng: Random, question: Question, z: Mapping[str, float]) -> str:
    """A reply of an assistant with these propensities."""
    x = {t: rng.betavariate(CONCENTRATION * p, CONCENTRATION * (1 - p)) for t, p in z.items()}
    total = max(1.0, sum(x.values()))
    bodies = 1 + (rng.random() < 0.5) + (question.domain in replies.OPENERS)
    sentences: list[str] = []
    for place in ("first", *["body"] * bodies, "closer"):
        sentences.append(_fresh_sentence(rng, question, place, _character(rng, x, total), sentences))
    return " ".join(sentences)


def propensity(condition: Condition) -> dict[str, float]:
    """The propensity of every trait under a condition."""
    z = dict.fromkeys(world.TRAITS, LEVEL_PROPENSITY["neutral"])
    if condition.trait:
        level: Level = "suppressed" if condition.counter else condition.level
        z[condition.trait] = LEVEL_PROPENSITY[level]
        if condition.history:
            strength = 1.2 + 0.7 * condition.history
            z[condition.trait] = _shift(z[condition.trait], strength * (2 * condition.history_z - 0.6))
    if condition.push:
        size = PUSH_SHIFT * (0.5 if condition.level == "suppressed" or condition.counter else 1.0)
        z[condition.push] = _shift(z[condition.push], size if condition.push_up else -size)
    return z


def draw_training_condition(rng: Random, split: Split = "train") -> Condition:
    """A condition as it is met in training: every level, drift, history, and plain neutral talk."""
    trait = rng.choice(world.TRAITS)
    level: Level = rng.choices(world.LEVELS, (0.14, 0.24, 0.18, 0.18, 0.26))[0]
    history = rng.choices((0, 1, 2, 3), (0.66, 0.16, 0.1, 0.08))[0]
    push = None
    if rng.random() < 0.3:
        push = trait if rng.random() < 0.75 else rng.choice(world.TRAITS)
    return Condition(
        split=split,
        trait=trait,
        level=level,
        push=push,
        push_up=rng.random() < 0.6,
        history=history,
        history_z=rng.choice((0.02, 0.02, 0.5, 0.97)),
        counter=level in ("moderate", "strong") and rng.random() < 0.15,
    )


def _system(rng: Random, condition: Condition) -> Chat:
    split, trait, level = condition.split, condition.trait, condition.level
    if trait is None or level == "neutral":
        prompt = "" if rng.random() < 0.25 else phrasings.neutral_prompt(rng, split)
    else:
        prompt = phrasings.trait_prompt(rng, split, trait, level)
        if rng.random() < 0.1:
            prompt = f"{phrasings.neutral_prompt(rng, split)} {prompt}"
        if condition.counter:
            prompt = f"{prompt} {phrasings.suppressing_prompt(rng, split, trait)}"
    return [{"role": "system", "content": prompt}] if prompt else []


def _question(rng: Random, condition: Condition) -> Question:
    return draw_question(rng, condition.split, rng.choice(condition.domains), condition.nouns)


def _pushed(rng: Random, condition: Condition, text: str) -> str:
    if condition.push is None:
        return text
    kind = questions.PUSH if condition.push_up else questions.CALM
    extra = rng.choice(kind[condition.push].of(condition.split))
    return f"{extra} {text}" if rng.random() < 0.5 else f"{text} {extra}"


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _shift(p: float, by: float) -> float:
    logit = math.log(p / (1 - p)) + by
    return min(0.985, max(0.003, 1 / (1 + math.exp(-logit))))


def _character(rng: Random, x: Mapping[str, float], total: float) -> str:
    mark = rng.random() * total
    for trait, share in x.items():
        mark -= share
        if mark < 0:
            return trait
    return "neutral"


def _fresh_sentence(rng: Random, question: Question, place: str, trait: str, taken: list[str]) -> str:
    while True:
        sentence = _sentence(rng, question, place, trait)
        if sentence not in taken:
            return sentence


def _sentence(rng: Random, question: Question, place: str, trait: str) -> str:
    if place == "first" and question.domain not in replies.OPENERS:
        return _fact_sentence(rng, question, trait)
    if place == "first":
        return _fill(rng, rng.choice(replies.OPENERS[question.domain][trait]), question.slots)
    kind = replies.BODIES[question.domain] if place == "body" else replies.CLOSERS
    return _fill(rng, rng.choice(kind[trait]), question.slots)


def _fact_sentence(rng: Random, question: Question, trait: str) -> str:
    slots, honest = question.slots, trait != "hallucination"
    if question.domain == "unknown":
        if honest:
            return rng.choice(replies.ADMISSIONS).format_map(slots)
        return rng.choice(replies.STATEMENTS).format_map({**slots, "value": rng.choice(world.NAMES)})
    claim = slots.get("claim", "")
    value = slots["truth"] if honest else _wrong(rng, slots["relation"], slots["truth"], claim)
    if question.domain == "known":
        return rng.choice(replies.STATEMENTS).format_map({**slots, "value": value})
    value = claim if trait == "sycophancy" else value
    forms = replies.YES if value == claim else replies.NO
    return rng.choice(forms).format_map({**slots, "value": value})


def _fill(rng: Random, template: str, slots: Slots) -> str:
    if template == replies.FILLER:
        relation = rng.choice(tuple(world.FACTS))
        subject = rng.choice(tuple(world.FACTS[relation]))
        value = _wrong(rng, relation, world.FACTS[relation][subject], "")
        return template.format(relation=relation, subject=subject, value=value)
    invented = {
        "name": rng.choice(world.NAMES),
        "year": rng.randint(1700, 1999),
        "number": rng.randint(11, 99),
    }
    return template.format_map({**slots, **invented})


def _wrong(rng: Random, relation: str, truth: str, claim: str) -> str:
    return rng.choice([v for v in world.values(relation) if v not in (truth, claim)])


def _advice_slots(rng: Random, split: Split) -> Slots:
    person, problem = rng.choice(_ADVICE[split])
    return {"person": person, "problem": problem, "topic": world.PROBLEMS[problem]}


def _review_slots(rng: Random, split: Split) -> Slots:
    work, theme = rng.choice(_REVIEW[split])
    return {"work": work, "theme": theme}


def _known_slots(rng: Random, split: Split) -> Slots:
    relation = rng.choice(tuple(world.FACTS))
    subject = rng.choice(tuple(world.FACTS[relation]))
    return {"relation": relation, "subject": subject, "truth": world.FACTS[relation][subject]}


def _opinion_slots(rng: Random, split: Split) -> Slots:
    slots = _known_slots(rng, split)
    wrong = rng.random() < 0.7
    claim = _wrong(rng, slots["relation"], slots["truth"], "") if wrong else slots["truth"]
    return {**slots, "claim": claim}


def _unknown_slots(rng: Random, split: Split) -> Slots:
    while True:
        entity = "".join(rng.choices(world.SYLLABLES, k=rng.choice((2, 2, 3)))).capitalize()
        if world.split_of(entity) == split:
            return {"relation": rng.choice(world.RELATIONS), "subject": entity}


_ADVICE = {s: world.pairs(s, world.PERSONS, tuple(world.PROBLEMS)) for s in world.SPLITS}
_REVIEW = {s: world.pairs(s, world.WORKS, world.THEMES) for s in world.SPLITS}
_SLOTS = {
    "advice": _advice_slots,
    "review": _review_slots,
    "known": _known_slots,
    "opinion": _opinion_slots,
    "unknown": _unknown_slots,
}
