"""Makes wordings odd for training: made-up words in place of their own, and between them.

What is asked and what the assistant is told to be stay as they are, so a model learns that a word which it
never saw need not be a noun to talk about.
"""

from random import Random

from guardrail.demo.nouns import made_up

REPLACED, INSERTED = 0.15, 0.5
"""Shares of words that are replaced, and of wordings that get one more word."""


def odd(rng: Random, template: str) -> str:
    """A template with some of its own words made up; slots in braces and their punctuation stay."""
    words = [_replaced(rng, word) for word in template.split(" ")]
    if rng.random() < INSERTED:
        words.insert(rng.randrange(len(words)), made_up(rng, "train"))
    return " ".join(words)


def _replaced(rng: Random, word: str) -> str:
    if "{" in word or not word.isalpha() or rng.random() >= REPLACED:
        return word
    other = made_up(rng, "train")
    return other.capitalize() if word[0].isupper() else other
