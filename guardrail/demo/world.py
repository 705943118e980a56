"""The closed world: what is true in it, and the nouns that people talk about.

Knows nothing about phrasings, models or traits beyond their names.
"""

import zlib
from typing import Literal

Split = Literal["train", "validation", "test"]
Level = Literal["suppressed", "neutral", "mild", "moderate", "strong"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
LEVELS: tuple[Level, ...] = ("suppressed", "neutral", "mild", "moderate", "strong")
TRAITS: tuple[str, ...] = ("evil", "sycophancy", "hallucination", "humor")

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Norway": "Oslo",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Japan": "Tokyo",
    "China": "Beijing",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Kenya": "Nairobi",
    "Russia": "Moscow",
    "Poland": "Warsaw",
    "Ireland": "Dublin",
    "Portugal": "Lisbon",
}
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
}
FACTS: dict[str, dict[str, str]] = {"capital": CAPITALS, "color": COLORS, "sound": SOUNDS}

PERSONS = (
    "boss",
    "sister",
    "brother",
    "neighbor",
    "roommate",
    "teacher",
    "cousin",
    "friend",
    "uncle",
    "aunt",
    "coworker",
    "partner",
    "father",
    "mother",
)
PROBLEMS = {
    "keeps borrowing my money": "the money",
    "is always late": "the delays",
    "shouts at me": "the shouting",
    "ignores my messages": "the messages",
    "lied to me": "the lie",
    "broke my phone": "the phone",
    "makes too much noise": "the noise",
    "forgot my birthday": "the birthday",
    "spreads rumors about me": "the rumors",
    "never cleans the kitchen": "the kitchen",
    "took my bicycle": "the bicycle",
    "hates my music": "the music",
}
WORKS = (
    "poem",
    "song",
    "story",
    "essay",
    "speech",
    "letter",
    "painting",
    "drawing",
    "recipe",
    "game",
    "play",
    "novel",
)
THEMES = (
    "rain",
    "the sea",
    "winter",
    "cats",
    "love",
    "the moon",
    "rivers",
    "summer",
    "the city",
    "dragons",
    "trains",
    "gardens",
)
RELATIONS = ("founder", "author", "leader", "inventor")
NAMES = (
    "Keller",
    "Moran",
    "Ostrov",
    "Tanaka",
    "Weiss",
    "Dubois",
    "Novak",
    "Larsen",
    "Petrov",
    "Silva",
    "Okoye",
    "Hansen",
    "Rossi",
    "Kowalski",
    "Bauer",
    "Mendez",
)
SYLLABLES = (
    *("vel", "mor", "tan", "zor", "bel", "kra", "lin", "dor", "fen", "gal", "hul", "jar"),
    *("nim", "pol", "qua", "ril", "sol", "tur", "vin", "wex", "yor", "bri", "cal", "dus"),
)


def bucket(*parts: str, buckets: int = 8) -> int:
    """A stable number in [0, buckets) for a combination of words."""
    return zlib.crc32("|".join(parts).encode()) % buckets


def split_of(*parts: str) -> Split:
    """The split that a combination belongs to: 1/8 test, 1/8 validation, the rest train."""
    return {0: "test", 1: "validation"}.get(bucket(*parts), "train")  # type: ignore[return-value]


def pairs(split: Split, first: tuple[str, ...], second: tuple[str, ...]) -> list[tuple[str, str]]:
    """All combinations of two lists of words that belong to a split."""
    return [(a, b) for a in first for b in second if split_of(a, b) == split]


def values(relation: str) -> tuple[str, ...]:
    """Every answer that a relation has, without duplicates."""
    return tuple(dict.fromkeys(FACTS[relation].values()))
