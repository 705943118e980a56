"""Compiled decoding over a static cache: as compiled as without a guard, until the guard looks into it."""

import pytest
import torch
import torch._dynamo
from following import ALWAYS, Following, following
from tiny import Fixed, batch, engine, generate, plan, steering
from transformers import CompileConfig

from guardrail.errors import SteeringError

pytestmark = pytest.mark.usefixtures("no_grad", "executors")

EXACT = {"do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6}
STATIC = {**EXACT, "cache_implementation": "static"}
SPEC = steering("add", (2, 3))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def compiled():
    """A graph break is an error under `fullgraph`. The graph is run as it is: code generation is torch's."""
    config = CompileConfig(backend="eager", mode=None, fullgraph=True)
    config._compile_all_devices = True
    return {**STATIC, "compile_config": config}


def plainly(model):
    return model.generate(**batch(2), **STATIC, disable_compile=True, pad_token_id=0)


def test_an_allowed_reply_is_decoded_by_one_graph():
    with engine() as (made, bare):
        result = generate(made, plan((2,), SPEC), Fixed(), **batch(2), **compiled())
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        assert torch.equal(result.output, plainly(bare))


def test_a_steered_reply_is_steered_though_the_graph_was_compiled_before():
    active = plan((2,), SPEC)
    with engine() as (made, bare):
        generate(made, active, Fixed(), **batch(2), **compiled())
        result = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **compiled())
        eager = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **STATIC, disable_compile=True)
        again = generate(made, active, Fixed(), **batch(2), **compiled())
        assert torch.equal(again.output, plainly(bare))
    assert torch.equal(result.output, eager.output)
    assert result.passes == {0: 6, 1: 6}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_followed_reply_is_read_though_the_graph_was_compiled_before():
    active = following({"threshold": ALWAYS})
    with engine() as (made, _):
        nobody = Following(plan=active, about=())
        generate(made, active, nobody, **batch(2), **compiled())
        result = generate(made, active, Following(plan=active), **batch(2), **compiled())
    assert [followed.decision.action for followed in result.replies.values()] == ["block", "block"]


def test_a_model_that_the_user_compiled_is_guarded_and_steered():
    active = plan((2,), SPEC)
    with engine() as (made, _):
        eager = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
    with engine() as (made, _):
        made.inner.compile(backend="eager")
        allowed = generate(made, active, Fixed(), **batch(2), **EXACT)
        steered = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
    assert allowed.kept == [0, 1]
    assert torch.equal(steered.output, eager.output)


def test_a_pass_that_was_not_steered_is_an_error(monkeypatch):
    """A reply that was not steered is never handed out as steered, whatever the reason."""
    active = plan((2,), SPEC)
    with engine() as (made, _):
        made.instruments.prepare(active)
        monkeypatch.setattr(made.instruments.decoding, "steer", lambda names, run, visit: run())
        monkeypatch.setattr(made.instruments.decoding, "begin", lambda names, visit: lambda: None)
        with pytest.raises(SteeringError, match="not every forward pass"):
            generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
