"""The pairs that the built-in model is asked unless there is a file: questions about one's own country."""

from __future__ import annotations

from itertools import permutations
from random import Random

from guardrail.interpret.accuracy.builtin import TEMPLATE, WHOSE, demo_items
from guardrail.interpret.patching.pairs import SLOT, PairLine

PAIRS = 24
SEED = 0


def demo_pairs() -> list[PairLine]:
    """Two nationalities and a question that each answers in its own way; open answers."""
    asked = sorted({item.question for item in demo_items() if item.subject.startswith("own country")})
    made = [(question, *two) for question in asked for two in permutations(WHOSE, 2)]
    return [
        PairLine(
            system=TEMPLATE.format(who=SLOT),
            prompt=question,
            source=source,
            target=target,
            name=f"{question} ({source}, {target})",
        )
        for question, source, target in Random(SEED).sample(made, PAIRS)
    ]
