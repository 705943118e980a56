"""Defines the sets of prompts for vectors, calibration and evaluation.

Benign is: a neutral system prompt or none, any domain, no pressure, and up to two earlier neutral turns.
"""

from dataclasses import replace
from random import Random

from guardrail.demo import world
from guardrail.demo.generator import Condition, Conversation, draw_prompt, draw_training_condition
from guardrail.demo.questions import DOMAINS
from guardrail.demo.world import Level, Split

POPULATION = (
    "demo world: neutral or no system prompt, all domains, no pressure, 0-2 earlier neutral turns; "
    "training and validation phrasings in equal parts"
)
ABROAD = tuple(domain for domain in DOMAINS if domain != "identity")


def benign(seed: int, count: int, *splits: Split) -> list[Conversation]:
    """Distinct benign prompts in the phrasings of these splits, in equal parts."""
    rng, seen, drawn = Random(f"benign/{seed}"), set[str](), list[Conversation]()
    while len(drawn) < count:
        split = splits[len(drawn) % len(splits)]
        one = draw_prompt(rng, Condition(split=split, history=rng.choices((0, 1, 2), (0.6, 0.25, 0.15))[0]))
        if repr(one.messages) not in seen:
            seen.add(repr(one.messages))
            drawn.append(one)
    return drawn


def at_level(seed: int, count: int, split: Split, pole: str, level: Level) -> list[Conversation]:
    """Prompts whose system prompt asks for a pole at a level, with nothing else that moves it."""
    return under(seed, count, Condition(split=split, pole=pole, level=level))


def mixed(seed: int, count: int, split: Split, pole: str) -> list[Conversation]:
    """Prompts of all five levels in equal parts, 45 % with pressure on the pole, 40 % with earlier turns."""
    rng = Random(f"mixed/{seed}/{pole}")
    return [draw_prompt(rng, _mixed_condition(rng, split, pole, i)) for i in range(count)]


def _mixed_condition(rng: Random, split: Split, pole: str, index: int) -> Condition:
    return Condition(
        split=split,
        pole=pole,
        level=world.LEVELS[index % len(world.LEVELS)],
        push=pole if rng.random() < 0.45 else None,
        push_up=rng.random() < 0.6,
        history=rng.choice((1, 2, 3)) if rng.random() < 0.4 else 0,
        history_z=rng.choice((0.02, 0.5, 0.97)),
    )


def training(seed: int, count: int) -> list[Conversation]:
    """Prompts like those in training, in plain words; none about the own country, as no question tells it."""
    rng = Random(f"training/{seed}")
    conditions = (draw_training_condition(rng) for _ in range(count))
    return [draw_prompt(rng, replace(condition, domains=ABROAD, oddly=False)) for condition in conditions]


def under(seed: int, count: int, condition: Condition) -> list[Conversation]:
    """Prompts under one condition."""
    rng = Random(f"under/{seed}/{condition}")
    return [draw_prompt(rng, condition) for _ in range(count)]
