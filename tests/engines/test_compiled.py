"""Compiled decoding over a static cache: as compiled as without a guard, until the guard looks into it."""

import pytest
import torch
import torch._dynamo
from following import ALWAYS, Following, following
from tiny import Fixed, batch, engine, generate, plan, steering
from transformers import CompileConfig

from guardrail.errors import SteeringError

pytestmark = pytest.mark.usefixtures("no_grad", "executors")

EXACT = {"do_sample": False, "min_new_tokens": 4, "max_new_tokens": 4}
STATIC = {**EXACT, "cache_implementation": "static"}
SPEC = steering("add", (1, 2))


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


def test_one_graph_decodes_replies_that_are_allowed_steered_and_followed():
    """What was compiled for an allowed reply looks at nothing: the guard must not run it for the others."""
    active, kwargs = plan((1,), SPEC), {**batch(2), **compiled()}
    with engine(layers=2) as (made, bare):
        allowed = generate(made, active, Fixed(), **kwargs)
        steered = generate(made, active, Fixed(("steer",), (SPEC,)), **kwargs)
        eager = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **STATIC, disable_compile=True)
        again = generate(made, active, Fixed(), **kwargs)
        stopping = following({"threshold": ALWAYS, "layer": 2})
        followed = generate(made, stopping, Following(plan=stopping), **kwargs)
        expected = plainly(bare)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(allowed.output, expected)
    assert torch.equal(again.output, expected)
    assert torch.equal(steered.output, eager.output)
    assert steered.passes == {0: 4, 1: 4}
    assert [reply.decision.action for reply in followed.replies.values()] == ["block", "block"]
    assert graphs == 1


def test_a_model_that_the_user_compiled_is_guarded_and_steered():
    active = plan((1,), SPEC)
    with engine(layers=2) as (made, _):
        eager = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
    with engine(layers=2) as (made, _):
        made.inner.compile(backend="eager")
        allowed = generate(made, active, Fixed(), **batch(2), **EXACT)
        steered = generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
    assert allowed.kept == [0, 1]
    assert torch.equal(steered.output, eager.output)


def test_a_pass_that_was_not_steered_is_an_error(monkeypatch):
    """A reply that was not steered is never handed out as steered, whatever the reason."""
    active = plan((1,), SPEC)
    with engine() as (made, _):
        made.instruments.prepare(active)
        monkeypatch.setattr(made.instruments.decoding, "steer", lambda names, run, visit: run())
        monkeypatch.setattr(made.instruments.decoding, "begin", lambda names, visit: lambda: None)
        with pytest.raises(SteeringError, match="not every forward pass"):
            generate(made, active, Fixed(("steer",), (SPEC,)), **batch(2), **EXACT)
