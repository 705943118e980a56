"""What earlier finetunes predict: a line with the interval of its own runs, which covers new ones."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.errors import ConfigError
from guardrail.statistics.intervals import Estimate
from guardrail.train.shift import Descent, LayerShift, Relation, Run, Shift, TraitRelation, TraitShift
from guardrail.train.shift.wording import NO_RELATION, findings


def relation(xs, ys, layer=2):
    runs = tuple(
        Run(name=str(i), shift=float(x), score=float(y)) for i, (x, y) in enumerate(zip(xs, ys, strict=True))
    )
    return TraitRelation(layer=layer, runs=runs)


def shift(**traits):
    """A shift whose traits moved by so many units at layer 2."""
    made = {
        name: TraitShift(
            trait=name,
            layer=2,
            prompts=20,
            layers=(
                LayerShift(layer=2, shift=Estimate(by, by - 1, by + 1), own=None, spread=2.0, asked=20.0),
            ),
            overlaps=(),
        )
        for name, by in traits.items()
    }
    return Shift(
        base="b",
        tuned="t",
        since="b",
        descent=Descent(kind="adapter", weights="w"),
        vectors_sha256="v",
        prompts_sha256="p",
        traits=made,
    )


def test_the_interval_covers_new_runs_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        x = rng.uniform(0, 10, 9)
        y = 20 + 5 * x + rng.normal(0, 4, 9)
        one = relation(x[:8], y[:8]).predict(x[8])
        inside += one.score.low <= y[8] <= one.score.high
    assert 0.92 * 400 <= inside <= 0.98 * 400


def test_scores_stay_on_their_scale_and_extensions_are_marked():
    line = relation(range(6), [10, 20, 30, 41, 49, 60])
    inside, beyond = line.predict(2.5), line.predict(20)
    assert inside.score.value == pytest.approx(35, abs=1)
    assert (inside.outside, beyond.outside) == (False, True)
    assert beyond.score.value == 100
    assert inside.r > 0.99
    with pytest.raises(ConfigError, match="at least 5 runs, and not all of the same shift"):
        relation([1.0] * 6, range(6)).predict(1.0)


def test_a_relation_is_made_of_runs_kept_in_a_file_and_checked(tmp_path):
    runs = {f"run {i}": (shift(evil=float(i), humor=1.0), {"evil": 10.0 * i}) for i in range(6)}
    made = Relation.of(runs, base_weights="w", judge="demo")
    made.save(tmp_path / "relation.json")
    found = Relation.load(tmp_path / "relation.json")
    assert found == made
    assert list(found.traits) == ["evil"]
    predicted = found.predictions(shift(evil=2.5, humor=0.0))
    assert predicted["evil"].score.value == pytest.approx(25)
    found.check("w", shift(evil=1.0))
    with pytest.raises(ConfigError, match=r"another base model$"):
        found.check("other", shift(evil=1.0))
    with pytest.raises(ConfigError, match="same vectors and prompts"):
        Relation.of({}, base_weights="w", judge="demo")


def test_findings_say_the_largest_first_and_that_a_shift_alone_gives_no_scores():
    told = findings(shift(evil=4.0, humor=-9.0, apathy=0.5), {})
    assert told[0] == "humor moved down by 4.5 standard deviations of the base"
    assert told[1].endswith("of the base (20 % of what system prompts that ask for it do)")
    assert told[2:] == [NO_RELATION]
    assert findings(shift(evil=0.5), {})[0] == "No trait has moved: all intervals include 0."
