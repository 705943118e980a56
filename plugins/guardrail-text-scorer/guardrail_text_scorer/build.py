"""How the shipped classifier was made: `python -m guardrail_text_scorer.build`.

Label 1 is a demo-world prompt whose system prompt or user asks for malice; label 0 is everything else in that
world: neutral, suppressed, and other strong traits. Phrasings of the splits do not overlap.
"""

from __future__ import annotations

from random import Random

import numpy as np

from guardrail.demo.generator import Condition, Conversation, draw_prompt
from guardrail.demo.world import POLES, Split
from guardrail_text_scorer import SHIPPED, TextClassifier
from guardrail_text_scorer.training import Example, train

TRAIT = "evil"


def examples(split: Split, count: int, seed: int) -> list[Example]:
    """Half of them malicious."""
    rng = Random(f"{split}/{seed}")
    return [_example(rng, split, malicious=i % 2 == 0) for i in range(count)]


def _example(rng: Random, split: Split, malicious: bool) -> Example:
    drawn = draw_prompt(rng, _malicious(rng, split) if malicious else _other(rng, split))
    return Example(tuple(_texts(drawn)), malicious)


def _malicious(rng: Random, split: Split) -> Condition:
    push = TRAIT if rng.random() < 0.5 else None
    return Condition(split=split, pole=TRAIT, level=rng.choice(("moderate", "strong")), push=push)


def _other(rng: Random, split: Split) -> Condition:
    if rng.random() < 0.4:
        return Condition(split=split)
    if rng.random() < 0.2:
        return Condition(split=split, pole=TRAIT, level="suppressed")
    pole = rng.choice([pole for pole in POLES if pole != TRAIT])
    return Condition(split=split, pole=pole, level=rng.choice(("mild", "strong")), push=pole)


def _texts(drawn: Conversation) -> list[str]:
    return [turn["content"] for turn in drawn.messages if turn["role"] in ("system", "user")]


def held_out(classifier: TextClassifier, count: int = 2000) -> tuple[float, float]:
    """(AUROC, true-positive rate at 1 % false positives) on test phrasings."""
    drawn = examples("test", count, seed=1)
    logits = np.array([classifier.logit(example.texts) for example in drawn])
    labels = np.array([example.label for example in drawn])
    positive, negative = logits[labels], np.sort(logits[~labels])
    ranks = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    threshold = negative[int(np.ceil(0.99 * len(negative))) - 1]
    return float(ranks.mean() / (2 * len(negative))), float((positive > threshold).mean())


def main() -> None:
    """Train, say how good it is, and save it into the package."""
    classifier = train("text-malice", examples("train", 6000, seed=0))
    auroc, tpr = held_out(classifier)
    print(f"held out: AUROC {auroc:.3f}, true positives at 1 % false positives {tpr:.3f}")
    classifier.save(SHIPPED)


if __name__ == "__main__":
    main()
