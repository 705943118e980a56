"""Turns the probabilities of a first token into a score (arXiv 2507.21509, B.1, and its published code).

The score is the mean of the numbers 0 to 100, weighted by their renormalised probabilities. The paper's text
mentions logits, but its code renormalises probabilities, and so does this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from guardrail.endpoint.messages import TokenLogprob
from guardrail.extract.judges.opinions import Opinion

TOP = 20
MIN_MASS = 0.25
"""If numbers have less probability than this in total, the judge has refused: None, which is not 0."""
_NUMBER = re.compile(r"[0-9]{1,3}")


def aggregate(alternatives: Iterable[TokenLogprob]) -> Opinion:
    """The expected number, 0 to 100; no score if numbers have less than MIN_MASS in total."""
    numbers = [(n, math.exp(a.logprob)) for a in alternatives if (n := number_in(a.token)) is not None]
    mass = sum(probability for _, probability in numbers)
    if mass < MIN_MASS:
        return Opinion(None, mass)
    return Opinion(sum(number * probability for number, probability in numbers) / mass, mass)


def number_in(token: str) -> int | None:
    """The whole number 0 to 100 that a token spells, ignoring blanks around it, or None."""
    text = token.strip()
    if not _NUMBER.fullmatch(text) or int(text) > 100:
        return None
    return int(text)
