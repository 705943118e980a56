"""Scales named heads, and measures what that does to a group's effect on answers and to accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from guardrail.engines.transformers.activations import Change, Site
from guardrail.errors import ConfigError
from guardrail.extract.journal import Report, silent
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.personas import Persona, filled
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.accuracy.scoring import option_probabilities
from guardrail.interpret.heads.contexts import Contexts
from guardrail.interpret.heads.results import AblationResult, Head, Scaled
from guardrail.interpret.heads.words import NEUTRAL
from guardrail.interpret.resuming import Work
from guardrail.statistics.intervals import Numbers, mean

DRAWS, SEED = 3, 0
"""Random sets of other heads."""


def check(subject: Subject, heads: Sequence[Head]) -> None:
    """Raises ConfigError for heads that the model does not have."""
    count = subject.activations.heads
    for one in heads:
        if not (1 <= one.layer <= subject.layers and one.head < count):
            raise ConfigError(
                f"there is no head {one}: layers are 1 to {subject.layers}, heads 0 to {count - 1}"
            )


def scaled(subject: Subject, heads: Sequence[Head], factor: float) -> dict[Site, Change]:
    """Multiplies what these heads put out; 0 ablates. Raises ConfigError for unknown heads."""
    check(subject, heads)
    layers = sorted({one.layer for one in heads})
    return {
        Site(layer, "heads"): partial(
            _multiply,
            [one.head for one in heads if one.layer == layer],
            subject.activations.head_size(layer),
            factor,
        )
        for layer in layers
    }


def _multiply(heads: Sequence[int], size: int, factor: float, values: Tensor) -> None:
    for head in heads:
        values[..., head * size : (head + 1) * size] *= factor


def ablation(
    asker: Asker,
    given: Contexts,
    items: Sequence[Item],
    heads: Sequence[Head],
    factor: float = 0.0,
    report: Report = silent,
    work: Path | None = None,
) -> AblationResult:
    """Effect and accuracy before and after, beside as many random other heads of the same layers.

    Each item is asked with every word, in the first template. An interrupted run in `work` is resumed. Raises
    ConfigError for unknown heads, ExtractionError if `work` was begun with other prompts or another model.
    """
    chosen = sorted(set(heads))
    check(asker.subject, chosen)
    probe = _Probe(asker, given, items, Work(work, report))
    before = probe.measure("before", (), 1.0)
    after = probe.measure("after", chosen, factor)
    others = [
        probe.measure(f"random {i + 1}", one, factor)
        for i, one in enumerate(_random(chosen, asker.subject.activations.heads))
    ]
    return AblationResult(
        heads=tuple(chosen),
        factor=factor,
        items=len(items),
        effect={group: mean(values) for group, values in before.effect.items()},
        accuracy=mean(before.right),
        scaled=_compared(before, after),
        random=tuple(_compared(before, one) for one in others),
    )


def _random(heads: Sequence[Head], count: int) -> list[list[Head]]:
    """As many heads of each layer that are not among these; none if a layer has not that many."""
    rng = np.random.default_rng(SEED)
    layers = {
        layer: [one.head for one in heads if one.layer == layer] for layer in {one.layer for one in heads}
    }
    if any(2 * len(own) > count for own in layers.values()):
        return []
    return [_drawn(rng, layers, count) for _ in range(DRAWS)]


def _drawn(rng: np.random.Generator, layers: Mapping[int, Sequence[int]], count: int) -> list[Head]:
    return [
        Head(layer, int(head))
        for layer, own in sorted(layers.items())
        for head in rng.choice([i for i in range(count) if i not in own], len(own), replace=False)
    ]


class _Measured:
    """Of each item: a group's effect, and the share of words with which the answer is right."""

    def __init__(self, probabilities: Numbers, answers: Numbers, given: Contexts) -> None:
        self.right = (probabilities.argmax(-1) == answers[:, None]).mean(1)
        neutral = probabilities[:, given.of(NEUTRAL)]
        among = _distances(neutral, _others(neutral)).mean(1)
        middle = neutral.mean(1, keepdims=True)
        self.effect = {
            group: _distances(probabilities[:, given.of(group)], middle).mean(1) - among
            for group in dict.fromkeys(given.groups)
            if group != NEUTRAL
        }


def _others(rows: Numbers) -> Numbers:
    """[items, words, options]: the mean over all other words."""
    return (rows.sum(1, keepdims=True) - rows) / (rows.shape[1] - 1)


def _distances(first: Numbers, second: Numbers) -> Numbers:
    """Total variation, in [0, 1]."""
    return np.abs(first - second).sum(-1) / 2


class _Probe:
    def __init__(self, asker: Asker, given: Contexts, items: Sequence[Item], work: Work) -> None:
        self._asker, self._given, self._work = asker, given, work
        template = given.contexts[0].template
        personas = [Persona(word, filled(template, word)) for word in given.words]
        self._pairs = [(persona, item) for item in items for persona in personas]
        self._answers = np.array([item.answer for item in items])

    def measure(self, stage: str, heads: Sequence[Head], factor: float) -> _Measured:
        about = {"heads": [str(head) for head in heads], "factor": factor}
        changes = scaled(self._asker.subject, heads, factor)
        found = option_probabilities(self._asker, self._pairs, changes, about, stage, self._work)
        shaped = found.reshape(len(self._answers), len(self._given.words), -1)
        return _Measured(shaped, self._answers, self._given)


def _compared(before: _Measured, after: _Measured) -> Scaled:
    return Scaled(
        effect={group: mean(values) for group, values in after.effect.items()},
        effect_change={group: mean(values - before.effect[group]) for group, values in after.effect.items()},
        accuracy=mean(after.right),
        accuracy_change=mean(after.right - before.right),
    )
