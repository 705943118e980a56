"""Self-BLEU: how alike the texts of a set are (Zhu et al. 2018, Texygen)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from math import exp, log
from typing import TypeAlias

Gram: TypeAlias = tuple[str, ...]
ORDER = 4
WORD = re.compile(r"\w+|[^\w\s]")


def self_bleu(texts: Sequence[str]) -> float:
    """The mean BLEU-4 (Papineni et al. 2002) of each text against all others: 0 all different, 1 all alike.

    Words in lower case. An order without a match counts as half a match (as NLTK's and sacreBLEU's floors,
    it keeps short texts from being 0 whatever they share). Orders longer than a text do not count.
    """
    words = [WORD.findall(text.lower()) for text in texts]
    orders = [_Order([Counter(_grams(row, n)) for row in words]) for n in range(1, ORDER + 1)]
    return sum(_bleu(i, words, orders) for i in range(len(words))) / len(words)


def _bleu(i: int, words: Sequence[Sequence[str]], orders: Sequence[_Order]) -> float:
    length = len(words[i])
    logs = [log(order.precision(i)) for order in orders[:length]]
    nearest = min((abs(len(row) - length), len(row)) for j, row in enumerate(words) if j != i)[1]
    return exp(min(0.0, 1 - nearest / length) + sum(logs) / len(logs))


class _Order:
    """The n-grams of one order of every text, and how often any other text has each."""

    def __init__(self, grams: Sequence[Counter[Gram]]) -> None:
        self._grams = grams
        self._counts: dict[Gram, list[int]] = {}
        for row in grams:
            for gram, count in row.items():
                self._counts[gram] = sorted([*self._counts.get(gram, [0, 0]), count])[-2:]

    def precision(self, i: int) -> float:
        """The clipped share of a text's n-grams that another text has as well."""
        own = self._grams[i]
        return (
            max(sum(min(count, self._elsewhere(gram, count)) for gram, count in own.items()), 0.5)
            / own.total()
        )

    def _elsewhere(self, gram: Gram, count: int) -> int:
        """The most that another text has of an n-gram that this one has `count` times."""
        second, most = self._counts[gram]
        return second if count == most else most


def _grams(words: Sequence[str], n: int) -> Iterator[Gram]:
    return zip(*(words[k:] for k in range(n)), strict=False)
