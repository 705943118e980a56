"""The possible answers of a judge, "0" to "100", as token sequences, and their score.

A tokenizer may spell 85 as one token or as two, so a number's probability is that of its whole string. If one
number begins another ("8" and "85"), the shorter one must also end: the next token must not be a digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from guardrail.errors import JudgeError
from guardrail.extract.judges.aggregation import MIN_MASS
from guardrail.extract.judges.opinions import Opinion

Ids: TypeAlias = tuple[int, ...]
Logprobs: TypeAlias = Mapping[Ids, np.ndarray]
"""Maps a prefix of an answer to the log-probability of each next token, float64 [rows, vocabulary]."""

NUMBERS = range(101)
DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class Answers:
    """Token ids of the 101 numbers, and the tokens that begin with a digit."""

    numbers: tuple[Ids, ...]
    digits: tuple[int, ...]

    @property
    def prefixes(self) -> tuple[Ids, ...]:
        """Every beginning of an answer after which the next token matters; the empty one is the prompt."""
        found = {ids[:end] for ids in self.numbers for end in range(len(ids))}
        return tuple(sorted(found))

    @property
    def paths(self) -> tuple[Ids, ...]:
        """The prefixes that no longer prefix contains: forward passes over these cover all prefixes."""
        known = self.prefixes
        return tuple(p for p in known if not any(o[: len(p)] == p for o in known if len(o) > len(p)))

    def opinions(self, logprobs: Logprobs) -> list[Opinion]:
        """One opinion per row: the expected number, none if the numbers have less than MIN_MASS in total."""
        numbers = np.stack([self._number(ids, logprobs) for ids in self.numbers], axis=1)
        mass = numbers.sum(axis=1)
        expected = numbers @ np.arange(len(NUMBERS)) / np.maximum(mass, np.finfo(float).tiny)
        return [
            Opinion(float(number) if sure >= MIN_MASS else None, float(sure))
            for number, sure in zip(expected, mass, strict=True)
        ]

    def _number(self, ids: Ids, logprobs: Logprobs) -> np.ndarray:
        probability = np.exp(_string(ids, logprobs))
        if ids not in logprobs:
            return probability
        going_on = np.exp(logprobs[ids][:, list(self.digits)]).sum(axis=1)
        return probability * np.clip(1.0 - going_on, 0.0, 1.0)


def _string(ids: Ids, logprobs: Logprobs) -> np.ndarray:
    return np.sum([logprobs[ids[:i]][:, token] for i, token in enumerate(ids)], axis=0)


def spell_answers(
    encode: Callable[[str], Sequence[int]], vocabulary: Mapping[str, int], unknown: int | None
) -> Answers:
    """The answers as a tokenizer spells them; `encode` gives the ids of text at the start of a reply.

    Raises JudgeError if the tokenizer has no tokens for digits.
    """
    numbers = tuple(tuple(encode(str(n))) for n in NUMBERS)
    if len(set(numbers)) < len(numbers) or any(not ids or unknown in ids for ids in numbers):
        raise JudgeError("the judge's tokenizer cannot write the numbers 0 to 100")
    # a token with a blank before its digit begins with a mark, so it does not continue a number
    digits = tuple(sorted(i for token, i in vocabulary.items() if token[:1] in DIGITS))
    return Answers(numbers, digits)
