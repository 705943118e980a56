"""Detectors of harm, all fitted on the same prompts: what `vectors fit` makes, and what sees the text alone.

A detector takes the rows to fit on and gives every row a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.real.prompt_files import Prompt
from guardrail.evaluation import baseline
from guardrail.extract.fit.fit import FitSettings, fit_trait
from guardrail.extract.fit.prepared import prepare
from guardrail.extract.fit.rows import LabelledPrompt
from guardrail.plugins.manager import Plugins
from guardrail.statistics.intervals import Numbers
from guardrail.types import Array, Place, Position

if TYPE_CHECKING:
    from guardrail.plugins.protocols import LabelledMethod

TRAIT = "harm"
Rows: TypeAlias = NDArray[np.intp]
Detector: TypeAlias = Callable[[Sequence[Prompt], Rows], Numbers]
"""All prompts, and the rows to fit on; [n] scores of all prompts, high for harm."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What `vectors fit` chooses and fits, from states that were read before; `chosen` says what.

    It looks at every third layer of the upper two thirds, to save time, or at those named.
    """

    states: Mapping[Place, Array]
    positions: tuple[Position, ...]
    most_places: int
    layers: tuple[int, ...] = ()
    chosen: list[str] = field(default_factory=list[str])

    def __call__(self, prompts: Sequence[Prompt], rows: Rows) -> Numbers:
        given = prepare([labelled(i, prompts[i]) for i in rows.tolist()])
        kept = np.array([int(row.place) for row in given.rows])
        own = {place: states[kept] for place, states in self.states.items()}
        found = fit_trait(TRAIT, given, own, self._settings())
        assert found.vector.layer is not None
        probe = found.vector.probe_at(found.vector.layer)
        read = " + ".join(f"{site.position} at layer {site.layer}" for site in probe.sites)
        self.chosen.append(f"{read}; {found.fit.reason}")
        return probe.projection(self.states).astype(np.float64)

    def _settings(self) -> FitSettings:
        methods = Plugins.from_environment().extraction_methods
        names = ("difference", "lda", "logistic")
        depth = max(layer for layer, _ in self.states)
        return FitSettings(
            methods=tuple(cast("LabelledMethod", methods[name]) for name in names),
            layers=self.layers or tuple(range(depth // 3, depth, 3)),
            positions=self.positions,
            most_places=self.most_places,
        )


def labelled(place: int, prompt: Prompt) -> LabelledPrompt:
    return LabelledPrompt(
        place=str(place),
        messages=prompt.messages,
        labels={TRAIT: prompt.harm},
        source=prompt.source,
        category=prompt.category,
        group=prompt.pair,
    )


def tf_idf(prompts: Sequence[Prompt], rows: Rows) -> Numbers:
    """TF-IDF of words and characters, and logistic regression (guardrail/evaluation/baseline.py)."""
    texts = [_text(prompt) for prompt in prompts]
    found = baseline.learnt([texts[i] for i in rows], [prompts[i].harm for i in rows], texts)
    assert found is not None, "both classes are there"
    return found


def text_scorer(prompts: Sequence[Prompt], rows: Rows) -> Numbers:
    """The plugin `text-scorer`, trained as its `train` command does."""
    from guardrail_text_scorer.training import Example, train

    turns = [tuple(m.content for m in p.messages if m.role in ("system", "user")) for p in prompts]
    fitted = train("harm", [Example(turns[i], prompts[i].harm) for i in rows])
    return np.array([fitted.logit(texts) for texts in turns])


def _text(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt.messages)
