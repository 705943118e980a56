"""Recommended layers against those of `evaluate`: what is compared, and what is left out."""

import pytest

from benchmarks.interpret.layers import agreements, table


def layer(number, causal, **shares):
    return {"layer": number, "weakest": causal, "shares": {"causal": causal, "separation": 1.0, **shares}}


def trait(name, chosen, *causal):
    layers = [layer(n, share) for n, share in enumerate(causal, 1)]
    return {"trait": name, "layer": chosen, "layers": layers, "disagreeing": ["causal"]}


def test_ranks_and_what_the_recommended_layer_loses():
    found = {"traits": [trait("evil", 2, 0.1, 0.9, 0.5), trait("humor", None, 0.1), trait("other", 1, 0.1)]}
    evaluation = {"traits": {"evil": {"auroc_by_layer": {"1": 0.6, "2": 0.8, "3": 0.9}}, "humor": {}}}
    (one,) = agreements(found, evaluation)
    assert (one.recommended, one.best, one.auroc, one.disagreeing) == (2, 3, 0.8, ("causal",))
    assert one.lost == pytest.approx(0.1)
    assert one.ranks == {
        "joined": pytest.approx(0.5),
        "causal": pytest.approx(0.5),
        "separation": None,
        "steering": None,
    }
    assert list(table([one]))[-1] == "| evil | 2 | 3 | 0.800 | 0.100 | 0.50 | 0.50 | – | – |"
