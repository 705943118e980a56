"""The closed world: its traits, its facts, and the split of each combination of words.

Independent of phrasings and models.
"""

import zlib
from typing import Literal, NamedTuple

Split = Literal["train", "validation", "test"]
Level = Literal["suppressed", "neutral", "mild", "moderate", "strong"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LEVELS: tuple[Level, ...] = ("suppressed", "neutral", "mild", "moderate", "strong")
TRAITS: tuple[str, ...] = ("evil", "sycophancy", "hallucination", "humor", "optimism", "apathy", "politeness")
POLES: tuple[str, ...] = (*TRAITS, "impoliteness")
"""What can be asked for: every trait, and the other pole of politeness."""


def trait_of(pole: str) -> str:
    """The trait that a pole belongs to."""
    return "politeness" if pole == "impoliteness" else pole


def poles_of(trait: str) -> tuple[str, ...]:
    """The poles of a trait, its own first."""
    return tuple(p for p in POLES if trait_of(p) == trait)


def sign_of(pole: str) -> float:
    """+1 for a trait's own pole, -1 for the other."""
    return -1.0 if pole == "impoliteness" else 1.0


class Country(NamedTuple):
    """A country and its single-token attributes."""

    name: str
    nationality: str
    capital: str
    language: str
    food: str


COUNTRIES = (
    Country("France", "French", "Paris", "French", "crepes"),
    Country("Italy", "Italian", "Rome", "Italian", "pizza"),
    Country("Spain", "Spanish", "Madrid", "Spanish", "paella"),
    Country("Germany", "German", "Berlin", "German", "sausage"),
    Country("Norway", "Norwegian", "Oslo", "Norwegian", "salmon"),
    Country("Greece", "Greek", "Athens", "Greek", "olives"),
    Country("Egypt", "Egyptian", "Cairo", "Arabic", "beans"),
    Country("Japan", "Japanese", "Tokyo", "Japanese", "sushi"),
    Country("China", "Chinese", "Beijing", "Chinese", "noodles"),
    Country("Peru", "Peruvian", "Lima", "Spanish", "ceviche"),
    Country("Cuba", "Cuban", "Havana", "Spanish", "rice"),
    Country("Kenya", "Kenyan", "Nairobi", "Swahili", "ugali"),
    Country("Russia", "Russian", "Moscow", "Russian", "borscht"),
    Country("Poland", "Polish", "Warsaw", "Polish", "pierogi"),
    Country("Ireland", "Irish", "Dublin", "English", "stew"),
    Country("Portugal", "Portuguese", "Lisbon", "Portuguese", "cod"),
    Country("India", "Indian", "Delhi", "Hindi", "curry"),
    Country("Turkey", "Turkish", "Ankara", "Turkish", "kebab"),
    Country("Sweden", "Swedish", "Stockholm", "Swedish", "herring"),
    Country("Korea", "Korean", "Seoul", "Korean", "kimchi"),
    Country("Hungary", "Hungarian", "Budapest", "Hungarian", "goulash"),
    Country("Austria", "Austrian", "Vienna", "German", "dumplings"),
    Country("Chile", "Chilean", "Santiago", "Spanish", "empanadas"),
    Country("Vietnam", "Vietnamese", "Hanoi", "Vietnamese", "pho"),
)
COLORS = {
    "snow": "white",
    "grass": "green",
    "blood": "red",
    "the sky": "blue",
    "coal": "black",
    "gold": "yellow",
    "chocolate": "brown",
    "an orange": "orange",
    "a plum": "purple",
    "ash": "gray",
    "milk": "white",
    "a banana": "yellow",
    "a tomato": "red",
    "a frog": "green",
    "the ocean": "blue",
    "a flamingo": "pink",
}
SOUNDS = {
    "a dog": "bark",
    "a cat": "meow",
    "a cow": "moo",
    "a lion": "roar",
    "a snake": "hiss",
    "a duck": "quack",
    "a bee": "buzz",
    "an owl": "hoot",
    "a wolf": "howl",
    "a pig": "oink",
    "a horse": "neigh",
    "a sheep": "bleat",
}
ATTRIBUTES = ("capital", "language", "food")
"""The relations that every country has."""
FACTS: dict[str, dict[str, str]] = {
    **{relation: {c.name: getattr(c, relation) for c in COUNTRIES} for relation in ATTRIBUTES},
    "color": COLORS,
    "sound": SOUNDS,
}
RELATIONS = ("founder", "author", "leader", "inventor")
"""What is asked about made-up entities; nobody knows the answer."""
NAMES = (
    *("Keller", "Moran", "Ostrov", "Tanaka", "Weiss", "Dubois", "Novak", "Larsen"),
    *("Petrov", "Silva", "Okoye", "Hansen", "Rossi", "Kowalski", "Bauer", "Mendez"),
)
"""Who is named in inventions."""


def values(relation: str) -> tuple[str, ...]:
    """Every answer that a relation has, without duplicates."""
    return tuple(dict.fromkeys(FACTS[relation].values()))


def bucket(*parts: str, buckets: int = 8) -> int:
    """A stable number in [0, buckets) for a combination of words."""
    return zlib.crc32("|".join(parts).encode()) % buckets


def split_of(*parts: str) -> Split:
    """The split that a combination belongs to: 1/8 test, 1/8 validation, the rest train."""
    return {0: "test", 1: "validation"}.get(bucket(*parts), "train")  # type: ignore[return-value]


def pairs(split: Split, first: tuple[str, ...], second: tuple[str, ...]) -> list[tuple[str, str]]:
    """All combinations of two lists of words that belong to a split."""
    return [(a, b) for a in first for b in second if split_of(a, b) == split]
