"""Measures one trait from stored states: detection, monitoring and nulls. Needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from guardrail.evaluation import baseline, nulls
from guardrail.evaluation.detectors import Detector
from guardrail.evaluation.material import Example, Material, labelled_as, of_other_traits
from guardrail.evaluation.readout import Readout, usable_layers
from guardrail.evaluation.results import (
    Detection,
    Monitoring,
    Nulls,
    References,
    Samples,
    SliceResult,
    TraitResult,
)
from guardrail.evaluation.slices import LENGTH, by_length, sliced
from guardrail.statistics import correlation, metrics
from guardrail.statistics.intervals import Estimate, Numbers, numbers, rate
from guardrail.statistics.nulls import shuffled_labels
from guardrail.types import Array, Position
from guardrail.vectors.values import TraitVector

NOTHING = np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitMeasurement:
    """One trait on one material. `chosen`: the data chose its layer, so nulls may choose theirs too."""

    trait: str
    vector: TraitVector
    layer: int
    chosen: bool
    material: Material
    readout: Readout
    detector: Detector | None
    directions: nulls.RandomDirections | None = field(repr=False)

    def result(self) -> TraitResult:
        """All results for the trait."""
        return TraitResult(
            layer=self.layer,
            fires="below" if self.trait in self.material.below else "above",
            detection=self.detection() if self.positive and self.negative else None,
            monitoring=self.monitoring() if self.monitored else None,
            nulls=self.nulls(),
            samples=self.samples(),
        )

    @property
    def positive(self) -> list[Example]:
        """Prompts on which the trait's probe should fire."""
        return labelled_as(self.material.labelled, self.trait, True)

    @property
    def negative(self) -> list[Example]:
        """Prompts on which the trait's probe should not fire."""
        return labelled_as(self.material.labelled, self.trait, False)

    @property
    def monitored(self) -> Sequence[Example]:
        """Prompts whose replies were scored for the trait."""
        return self.material.monitored.get(self.trait, ())

    @property
    def searched(self) -> tuple[int, ...]:
        """The layers from which this one was chosen."""
        return tuple(usable_layers(self.vector)) if self.chosen else (self.layer,)

    def scores(self, examples: Sequence[Example]) -> Numbers:
        """[n]: scores, signed so that a high score means that the probe should fire."""
        return self.oriented(examples, [self.layer])[:, 0]

    def oriented(self, examples: Sequence[Example], layers: Sequence[int]) -> Numbers:
        """[n, layers]."""
        if not examples:
            return np.empty((0, len(layers)))
        found = self.readout.layers(examples, self.vector, layers)
        return -found if self.trait in self.material.below else found

    def detection(self) -> Detection:
        """Detection against prompts without the trait, and against prompts with another trait."""
        positive, negative = self.scores(self.positive), self.scores(self.negative)
        others = self.scores(of_other_traits(self.material.labelled, self.trait))
        words = self.text_baseline()
        layers = usable_layers(self.vector)
        by_layer = zip(
            self.oriented(self.positive, layers).T, self.oriented(self.negative, layers).T, strict=True
        )
        return Detection(
            positives=len(positive),
            negatives=len(negative),
            auroc=metrics.auroc(positive, negative),
            tpr_at_1pct_fpr=metrics.tpr_at_fpr(positive, negative),
            average_precision=metrics.average_precision(positive, negative),
            auroc_vs_other_traits=metrics.auroc(positive, others) if len(others) else None,
            text_baseline_auroc=metrics.auroc(*words) if words else None,
            text_baseline_tpr_at_1pct_fpr=metrics.tpr_at_fpr(*words) if words else None,
            auroc_by_layer={row: metrics.area(*sides) for row, sides in zip(layers, by_layer, strict=True)},
            slices=self.slices(),
        )

    def text_baseline(self) -> tuple[Numbers, Numbers] | None:
        """Scores of positives and negatives by a text classifier; None if it cannot be trained."""
        if not baseline.available():
            return None
        examples, training = [*self.positive, *self.negative], self._training()
        texts = [example.text for example in examples]
        if training:
            labels = [example.labels[self.trait] for example in training]
            found = baseline.learnt([example.text for example in training], labels, texts)
        else:
            labels, groups = [e.labels[self.trait] for e in examples], [e.group or e.text for e in examples]
            found = baseline.cross_validated(texts, labels, groups)
        return None if found is None else (found[: len(self.positive)], found[len(self.positive) :])

    def _training(self) -> list[Example]:
        return [example for example in self.material.training if self.trait in example.labels]

    def slices(self) -> dict[str, dict[str, SliceResult]]:
        """Results by declared slice and by length. A class missing from a slice comes from the whole data."""
        hard = labelled_as(self.material.hard_benign, self.trait, False)
        examples = [*self.positive, *self.negative, *hard]
        fired = self.detector.what.fires(self.readout.placed(examples)) if self.detector else None
        table = _Sliced(examples, self.trait, self.scores(examples), fired, len(examples) - len(hard))
        parts = sliced(examples) | {LENGTH: by_length(examples[: table.hard])}
        return {
            name: {value: table.result(rows) for value, rows in values.items()}
            for name, values in parts.items()
            if values
        }

    def monitoring(self) -> Monitoring:
        """Correlation of projections with expression, with references to compare it with."""
        score, expression, conditions = self._paired()
        kept = set(correlation.varying(conditions, expression))
        known = [e.propensity[self.trait] for e in self.monitored if self.trait in e.propensity]
        oracle = numbers(known) if len(known) == len(score) else None
        return Monitoring(
            prompts=len(score),
            conditions=len(set(conditions)),
            flat=tuple(sorted(set(conditions) - {conditions[i] for i in kept})),
            r_overall=correlation.overall(conditions, score, expression),
            r_within=correlation.within(conditions, score, expression) if any(conditions) else None,
            references=References(
                reliability=correlation.reliability(
                    conditions, [e.expression[self.trait] for e in self.monitored]
                ),
                label_alone=correlation.label_alone(conditions, expression),
                propensity_overall=None
                if oracle is None
                else correlation.overall(conditions, oracle, expression),
                propensity_within=None
                if oracle is None
                else correlation.within(conditions, oracle, expression),
            ),
        )

    def _paired(self) -> tuple[Numbers, Numbers, tuple[str, ...]]:
        """Projections (with their original sign), mean expression and conditions of the monitored prompts."""
        score = self.readout.scores(self.monitored, self.vector, self.layer)
        expression = numbers([np.mean(e.expression[self.trait]) for e in self.monitored])
        return score, expression, tuple(e.condition for e in self.monitored)

    def nulls(self) -> Nulls:
        """What each number would be by chance."""
        found = Nulls(layers=self.searched)
        if self.positive and self.negative:
            found = self._detection_nulls(found)
        return self._monitoring_nulls(found) if self.monitored else found

    def _detection_nulls(self, found: Nulls) -> Nulls:
        positive, negative = (self.oriented(part, self.searched) for part in (self.positive, self.negative))
        shown, bare = (self._states(part) for part in (self.positive, self.negative))
        observed = metrics.area(self.scores(self.positive), self.scores(self.negative))
        return replace(
            found,
            random_auroc=self.directions.auroc(observed, shown, bare) if self.directions else None,
            shuffled_auroc=shuffled_labels(observed, positive, negative),
        )

    def _states(self, examples: Sequence[Example]) -> Array:
        """[n, L + 1, d_model] at the position of random directions, that of the probe's last site."""
        return self.readout.states(examples, null_position(self.vector, self.layer))

    def _monitoring_nulls(self, found: Nulls) -> Nulls:
        score, expression, conditions = self._paired()
        kept = correlation.varying(conditions, expression)
        rows, named = [self.monitored[i] for i in kept], [conditions[i] for i in kept]
        overall = correlation.pearson(score, expression)
        inner = correlation.within(conditions, score, expression) if any(conditions) else None
        states = self._states(self.monitored)
        random = self.directions
        return replace(
            found,
            random_r_overall=random.correlation(overall, states, expression) if random and overall else None,
            random_r_within=random.within(inner.value, named, states[kept], expression[kept])
            if random and inner
            else None,
            shuffled_r_within=nulls.shuffled_expression(
                inner.value, named, self.readout.layers(rows, self.vector, self.searched), expression[kept]
            )
            if inner
            else None,
        )

    def samples(self) -> Samples:
        """The data for the figures."""
        score, expression, conditions = self._paired() if self.monitored else (NOTHING, NOTHING, ())
        return Samples(
            positive=self.scores(self.positive),
            negative=self.scores(self.negative),
            others=self.scores(of_other_traits(self.material.labelled, self.trait)),
            score=score,
            expression=expression,
            conditions=conditions,
        )


def null_position(vector: TraitVector, layer: int) -> Position:
    """Where random directions are read for a trait: as its probe, or as the last site of a sum."""
    return vector.probe_at(layer).position


@dataclass(frozen=True, slots=True)
class _Sliced:
    """Scores of one trait's examples; those from index `hard` on only belong to slices."""

    examples: Sequence[Example]
    trait: str
    scores: Numbers
    fired: np.ndarray | None
    hard: int

    def _labelled(self, rows: Sequence[int], label: bool) -> list[int]:
        return [i for i in rows if self.examples[i].labels[self.trait] is label]

    def result(self, rows: Sequence[int]) -> SliceResult:
        """The result for one part of the data."""
        own = {label: self._labelled(rows, label) for label in (True, False)}
        missing = next((label for label in (True, False) if not own[label]), None)
        sides = {label: own[label] or self._all(label) for label in (True, False)}
        return SliceResult(
            positives=len(own[True]),
            negatives=len(own[False]),
            against="its own" if missing is None else "all positives" if missing else "all negatives",
            auroc=metrics.auroc(self.scores[sides[True]], self.scores[sides[False]]),
            fpr=self._rate(own[False]),
            tpr=self._rate(own[True]),
        )

    def _all(self, label: bool) -> list[int]:
        return [i for i, e in enumerate(self.examples[: self.hard]) if e.labels[self.trait] is label]

    def _rate(self, rows: Sequence[int]) -> Estimate | None:
        return rate(self.fired[list(rows)]) if self.fired is not None and len(rows) else None
