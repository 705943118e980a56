"""Whatever a request hands out is plain data: `asdict` takes it apart, and JSON can hold it."""

import json
from dataclasses import asdict, is_dataclass, replace

import numpy as np
import pytest
from tiny import FIRES, NEVER, batch, guard, policy

import guardrail
from guardrail.testing import ticket
from guardrail.types import RawPrompt, Steering, ToolCall

CAP = {"steer": {"operator": "cap", "at": {"percentile": 50}}}
FOLLOWED = policy(threshold=NEVER, stage="response") | {"id": "reply", "threshold": {"raw": NEVER}}
GREEDY = {"temperature": 0, "max_new_tokens": 4}


@pytest.fixture
def values(tmp_path):
    """One of each public value, by its type's name."""
    with guard(tmp_path, policy(CAP, threshold=FIRES), FOLLOWED) as made:
        reply, active = made.chat("Hello", **GREEDY), made.active
        output = made.generate(**batch(1), max_new_tokens=3, return_dict_in_generate=True)
        assert reply.steered_passes > 0
        assert reply.decision.steering
        found = [
            *(reply, made.check("Hello"), reply.decision, reply.decision.scores[0], reply.history[0]),
            *(active.vectors, active.vectors["evil"], active.calibration, active.plan.probes[0], ticket()),
            *(ToolCall("1", "f"), RawPrompt("a")),
        ]
    json.dumps(asdict(output.decisions[0]))
    return {type(value).__name__: value for value in found}


ARRAYS = {"Probe", "TraitVector", "TraitVectors"}
"""Values that are made of arrays; files hold these."""


def test_every_public_value_is_plain_data(values):
    public = {name for name in guardrail.__all__ if is_dataclass(getattr(guardrail, name))}
    assert set(values) == public
    for name, value in values.items():
        parts = asdict(value)
        if name not in ARRAYS:
            assert json.loads(json.dumps(parts))


def test_a_steering_keeps_its_directions_beside_its_fields():
    direction = np.ones(4, np.float32)
    made = Steering(policy="a", trait="evil", operator="ablate", layers=(2,), directions=(direction,))
    assert made.renamed("b").policy == "b"
    assert made.renamed("b").direction(0) is direction
    assert "directions" not in asdict(made)
    with pytest.raises(ValueError, match="directions"):
        replace(made, policy="b")
