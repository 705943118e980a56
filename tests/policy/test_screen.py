"""All thresholds at once says what each of them says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.policy.rules import CompiledCondition, Screen

ANY = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]))
CONDITIONS = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 0.0, 1.0]), st.sampled_from(["above", "below"])),
    min_size=1,
    max_size=6,
)


@given(conditions=CONDITIONS, readings=st.lists(ANY, min_size=5, max_size=5))
def test_it_is_quiet_where_every_score_is_finite_and_no_condition_holds(conditions, readings):
    held = [
        CompiledCondition(trait="t", layer=1, reading=i, threshold=limit, raw=limit, fires=fires).holds(
            readings[i]
        )
        or not math.isfinite(readings[i])
        for i, limit, fires in conditions
    ]
    assert Screen(conditions).quiet(readings) == (not any(held))


@pytest.mark.parametrize("fires", ["above", "below"])
def test_a_score_at_its_threshold_is_not_quiet(fires):
    assert not Screen([(0, 0.5, fires)]).quiet([0.5])
