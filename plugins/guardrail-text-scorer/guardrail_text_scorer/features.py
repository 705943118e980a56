"""Texts as hashed n-grams: words, pairs of words, and 3 to 5 characters. The same on every machine.

A bag of n-grams, its counts damped by log(1 + n) and scaled to length 1 (Weinberger et al. 2009, hashing).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+|[^\w\s]")
CHARACTERS = (3, 4, 5)


def vector(texts: Iterable[str], size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(indices, values) of all turns together; n-grams do not cross turns. Both are empty for no text."""
    counts = Counter(crc32(gram.encode()) % size for text in texts for gram in grams(text))
    indices = np.fromiter(counts.keys(), np.int64, len(counts))
    values = np.fromiter(map(math.log1p, counts.values()), np.float32, len(counts))
    return indices, values / max(float(np.linalg.norm(values)), 1e-12)


def grams(text: str) -> Iterator[str]:
    """All n-grams of a text; the prefix keeps kinds apart."""
    words = WORD.findall(text.casefold())
    yield from (f"w {word}" for word in words)
    yield from (f"p {first} {second}" for first, second in itertools.pairwise(words))
    for word in words:
        padded = f" {word} "
        yield from (f"c {padded[i : i + n]}" for n in CHARACTERS for i in range(len(padded) - n + 1))
