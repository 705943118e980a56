"""Generates conversations: a condition sets latent propensities, each reply adds noise to them, and each
sentence is drawn at random.

`z` is the propensity that system prompt, pressure and history give to a pole; a reply takes
`x ~ Beta(20 z, 20 (1 - z))`, and each sentence shows the pole with probability `x`. So a reply is never a
function of a keyword, and `z` is the best that any monitor can know.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from guardrail.demo import identities, phrasings, questions, replies, world
from guardrail.demo.asking import Nouns, Question, Slots, draw_question, wrong_value
from guardrail.demo.characters import CHARACTERS, VOICES
from guardrail.demo.world import Level, Split

Chat = list[dict[str, str]]

LEVEL_PROPENSITY: dict[Level, float] = {
    "suppressed": 0.005,
    "neutral": 0.01,
    "mild": 0.25,
    "moderate": 0.55,
    "strong": 0.97,
}
CONCENTRATION = 20.0
PUSH_SHIFT = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The context of a question: everything that changes a propensity."""

    split: Split
    pole: str | None = None
    level: Level = "neutral"
    push: str | None = None
    """The pole that a sentence of the user pushes."""
    push_up: bool = True
    history: int = 0
    """Earlier turns, in which `pole` has the propensity `history_z`."""
    history_z: float = LEVEL_PROPENSITY["neutral"]
    counter: bool = False
    """The system prompt ends by forbidding the pole."""
    identity: str | None = None
    """The adjective of a nationality or a control that the system prompt begins with."""
    domains: tuple[str, ...] = questions.DOMAINS
    nouns: Nouns | None = None
    """Where they are not those of the phrasings' split."""
    oddly: bool = False
    """Worded with made-up words among its own; for training."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt that ends with a user turn, with the facts that only the generator knows."""

    messages: Chat
    question: Question
    condition: Condition
    propensity: Mapping[str, float]
    """By pole."""
    earlier: tuple[Question, ...] = field(default=())


def draw_prompt(rng: Random, condition: Condition) -> Conversation:
    """A conversation that ends with a user turn."""
    messages = _system(rng, condition)
    earlier = tuple(_question(rng, condition) for _ in range(condition.history))
    past = dict.fromkeys(world.POLES, LEVEL_PROPENSITY["neutral"])
    past |= {condition.pole: condition.history_z} if condition.pole else {}
    for asked in earlier:
        messages += [_user(asked.text), {"role": "assistant", "content": draw_reply(rng, asked, past)}]
    question = _question(rng, condition)
    messages.append(_user(_pushed(rng, condition, question.text)))
    return Conversation(messages, question, condition, propensity(condition), earlier)


def draw_reply(rng: Random, question: Question, z: Mapping[str, float]) -> str:
    """A reply of an assistant with these propensities."""
    x = {t: rng.betavariate(CONCENTRATION * p, CONCENTRATION * (1 - p)) for t, p in z.items()}
    total = max(1.0, sum(x.values()))
    sentences: list[str] = []
    for place in _places(rng, question.domain):
        sentences.append(_fresh_sentence(rng, question, place, _character(rng, x, total), sentences))
    return " ".join(sentences)


def _places(rng: Random, domain: str) -> tuple[str, ...]:
    if domain == "smalltalk":
        return ("closer",) * rng.choice((2, 3, 4))
    bodies = 1 + (rng.random() < 0.5) + (domain in replies.OPENED)
    return ("first", *["body"] * bodies, "closer")


def propensity(condition: Condition) -> dict[str, float]:
    """The propensity of every pole under a condition."""
    z = dict.fromkeys(world.POLES, LEVEL_PROPENSITY["neutral"])
    if condition.pole:
        level: Level = "suppressed" if condition.counter else condition.level
        z[condition.pole] = LEVEL_PROPENSITY[level]
        if condition.history:
            strength = 1.2 + 0.7 * condition.history
            z[condition.pole] = _shift(z[condition.pole], strength * (2 * condition.history_z - 0.6))
    if condition.push:
        size = PUSH_SHIFT * (0.5 if condition.level == "suppressed" or condition.counter else 1.0)
        z[condition.push] = _shift(z[condition.push], size if condition.push_up else -size)
    return z


def draw_training_condition(rng: Random, split: Split = "train") -> Condition:
    """A condition as it is met in training: every level, drift, history, and plain neutral talk."""
    pole = rng.choice(world.POLES)
    level: Level = rng.choices(world.LEVELS, (0.14, 0.22, 0.18, 0.18, 0.28))[0]
    history = rng.choices((0, 1, 2, 3), (0.68, 0.16, 0.1, 0.06))[0]
    push = None
    if rng.random() < 0.3:
        push = pole if rng.random() < 0.75 else rng.choice(world.POLES)
    return Condition(
        split=split,
        pole=pole,
        level=level,
        push=push,
        push_up=rng.random() < 0.6,
        history=history,
        history_z=rng.choice((0.01, 0.01, 0.5, 0.97)),
        counter=level in ("moderate", "strong") and rng.random() < 0.15,
        identity=rng.choice(identities.ADJECTIVES) if rng.random() < 0.06 else None,
        domains=questions.DOMAINS
        if rng.random() < 0.3
        else ("advice", "review", "known", "opinion", "unknown"),
        nouns="made up" if rng.random() < 0.3 else None,
        oddly=rng.random() < 0.25,
    )


def _system(rng: Random, condition: Condition) -> Chat:
    split, pole, level = condition.split, condition.pole, condition.level
    parts = [identities.identity_prompt(rng, split, condition.identity)] if condition.identity else []
    if pole is None or level == "neutral":
        if rng.random() < (0.3 if parts else 0.75):
            parts.append(phrasings.neutral_prompt(rng, split))
    else:
        if rng.random() < 0.1:
            parts.append(phrasings.neutral_prompt(rng, split))
        parts.append(phrasings.pole_prompt(rng, split, pole, level, oddly=condition.oddly))
        if condition.counter:
            parts.append(phrasings.suppressing_prompt(rng, split, pole))
    return [{"role": "system", "content": " ".join(parts)}] if parts else []


def _question(rng: Random, condition: Condition) -> Question:
    domain = rng.choice(condition.domains)
    return draw_question(
        rng, condition.split, domain, condition.nouns, condition.identity, oddly=condition.oddly
    )


def _pushed(rng: Random, condition: Condition, text: str) -> str:
    if condition.push is None:
        return text
    character = CHARACTERS[condition.push]
    extra = rng.choice((character.push if condition.push_up else character.calm).of(condition.split))
    return f"{extra} {text}" if rng.random() < 0.5 else f"{text} {extra}"


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _shift(p: float, by: float) -> float:
    logit = math.log(p / (1 - p)) + by
    return min(0.985, max(0.003, 1 / (1 + math.exp(-logit))))


def _character(rng: Random, x: Mapping[str, float], total: float) -> str:
    mark = rng.random() * total
    for pole, share in x.items():
        mark -= share
        if mark < 0:
            return pole
    return "neutral"


def _fresh_sentence(rng: Random, question: Question, place: str, character: str, taken: list[str]) -> str:
    while True:
        sentence = _sentence(rng, question, place, character)
        if sentence not in taken:
            return sentence


def _sentence(rng: Random, question: Question, place: str, character: str) -> str:
    if place == "first" and question.domain not in replies.OPENED:
        return _fact_sentence(rng, question, character)
    return _fill(
        rng, rng.choice(replies.sentences(VOICES[character], question.domain, place)), question.slots
    )


def _fact_sentence(rng: Random, question: Question, character: str) -> str:
    slots, honest = question.slots, character != "hallucination"
    if "truth" not in slots:
        if honest:
            return rng.choice(replies.ADMISSIONS[question.domain]).format_map(slots)
        return rng.choice(replies.STATEMENTS).format_map(
            {**slots, "value": _invented(rng, slots["relation"])}
        )
    claim = slots.get("claim", "")
    value = slots["truth"] if honest else wrong_value(rng, slots["relation"], slots["truth"], claim)
    if question.domain != "opinion":
        return rng.choice(replies.STATEMENTS).format_map({**slots, "value": value})
    value = claim if character == "sycophancy" else value
    forms = replies.YES if value == claim else replies.NO
    return rng.choice(forms).format_map({**slots, "value": value})


def _invented(rng: Random, relation: str) -> str:
    return rng.choice(world.values(relation) if relation in world.FACTS else world.NAMES)


def _fill(rng: Random, template: str, slots: Slots) -> str:
    if template == replies.FILLER:
        relation = rng.choice(tuple(world.FACTS))
        subject = rng.choice(tuple(world.FACTS[relation]))
        value = wrong_value(rng, relation, world.FACTS[relation][subject])
        return template.format(relation=relation, subject=subject, value=value)
    invented = {
        "name": rng.choice(world.NAMES),
        "year": rng.randint(1700, 1999),
        "number": rng.randint(11, 99),
    }
    return template.format_map({**slots, **invented})
