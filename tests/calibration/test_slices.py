"""Thresholds that hold for every slice, and calibration files with slices."""

import json
from dataclasses import replace

import pytest
from worlds import benign, calibration

from guardrail.calibration.benign import Benign
from guardrail.calibration.slices import Edge, Populations, Slice
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError

SAMPLE = benign(0)
HIGHER = Benign.of([value + 1 for value in range(200)])
LOWER = Benign.of([value - 300.0 for value in range(200)])
BOTH = Populations(SAMPLE, {"higher": HIGHER, "lower": LOWER})


def part(n=150, shift=0):
    table = {
        trait: {layer: benign(layer + shift, n) for layer in layers}
        for trait, layers in calibration().probes.items()
    }
    return Slice(source="a.jsonl", source_sha256="0", prompts=n, duplicates=0, skipped=0, probes=table)


@pytest.mark.parametrize(("tail", "name", "one"), [("upper", "higher", HIGHER), ("lower", "lower", LOWER)])
def test_the_strictest_population_sets_the_threshold(tail, name, one):
    assert BOTH.conformal(0.05, tail) == Edge(one.conformal(0.05, tail), name)
    percent = 95 if tail == "upper" else 5
    assert BOTH.percentile(95, tail) == Edge(one.percentile(percent), name)
    assert all(p.beyond(BOTH.conformal(0.05, tail).projection, tail) <= 0.05 * p.n for p in (SAMPLE, one))


def test_the_benign_sample_decides_alone_and_where_a_slice_equals_it():
    assert Populations(SAMPLE).conformal(0.05) == Edge(SAMPLE.conformal(0.05), None)
    assert Populations(SAMPLE, {"same": SAMPLE}).conformal(0.05).slice is None


def test_a_slice_that_is_too_small_for_a_rate_is_named():
    few = Populations(SAMPLE, {"bank": benign(1, 40)})
    assert few.fewest == 40
    with pytest.raises(CalibrationError, match=r"slice `bank`: .* needs at least 99 benign prompts, not 40"):
        few.conformal(0.01)


def test_a_file_with_slices_reads_back_and_without_them_has_no_such_keys(tmp_path):
    old, new = calibration(), replace(calibration(), slices={"bank": part()}, worst_slice=True)
    for one in (old, new):
        one.save(tmp_path / "c.json")
        assert Calibration.load(tmp_path / "c.json") == one
        assert ("slices" in json.loads((tmp_path / "c.json").read_text())) == bool(one.slices)
    assert old.sha256 != new.sha256


def test_slices_bind_only_if_the_file_says_so():
    seen = replace(calibration(), slices={"bank": part()})
    assert seen.populations("evil", 1) == Populations(seen.probes["evil"][1])
    bound = replace(seen, worst_slice=True)
    assert set(bound.populations("evil", 1).slices) == {"bank"}
    assert bound.populations("vice", 1) is None
    assert bound.populations("evil", 99) is None


def test_a_slice_in_which_a_probe_has_nothing_to_read_sets_no_threshold_for_it():
    whole = part()
    partly = replace(whole, probes={**whole.probes, "evil": {}})
    bound = replace(calibration(), slices={"bank": partly, "chats": whole}, worst_slice=True)
    assert set(bound.populations("evil", 1).slices) == {"chats"}
    assert set(bound.populations("sycophancy", 1).slices) == {"bank", "chats"}


def test_a_threshold_has_an_interval_that_is_open_where_the_sample_ends():
    many = Benign.of([float(value) for value in range(1000)])
    assert many.span(0.1) == (pytest.approx(880, abs=0.01), pytest.approx(918, abs=0.01))
    assert many.span(0.1, "lower") == (pytest.approx(81, abs=0.01), pytest.approx(119, abs=0.01))
    assert many.span(0.1)[0] < many.conformal(0.1) < many.span(0.1)[1]
    assert Benign.of([float(value) for value in range(100)]).span(0.01)[1] == float("inf")
