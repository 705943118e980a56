"""Times of the engine's paths. Every test checks what it has timed."""

import pytest
import torch

from benchmarks import cases

CASES = {
    "first-token": cases.first_token,
    "allow": cases.allow,
    "block": cases.blocked,
    "check": cases.checked,
    "steer-one": cases.steer_one,
    "steer-all": cases.steer_all,
}


@pytest.mark.parametrize("name", CASES)
def test_guarded(benchmark, subject, engine, name):
    """The guarded call does what its case says."""
    benchmark.group = f"{subject.name}: {name}"
    case = CASES[name](subject, engine)
    result = benchmark.pedantic(case.guarded, rounds=5, warmup_rounds=1)
    assert case.holds(result, case.bare())


@pytest.mark.parametrize("name", CASES)
def test_bare(benchmark, subject, engine, name):
    """What the guarded call is compared with, on the copy that was never wrapped."""
    benchmark.group = f"{subject.name}: {name}"
    case = CASES[name](subject, engine)
    assert benchmark.pedantic(case.bare, rounds=5, warmup_rounds=1) is not None


def test_after_close(benchmark, subject, engine):
    """A model that was guarded once answers like one that never was."""
    benchmark.group = f"{subject.name}: after close"
    engine.close()
    case = cases.closed(subject)
    result = benchmark.pedantic(case.guarded, rounds=5, warmup_rounds=1)
    assert torch.equal(result, case.bare())
