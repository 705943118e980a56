"""A server whose guard cannot start does not start, and one without a guard answers nothing."""

import openai
import pytest

from guardrail.demo.prompts import TOUR

POLICIES = """
version: 1
vectors: demo
calibration: demo
policies:
  - {id: no-malice, trait: evil, layer: 8, threshold: {fpr: 0.001}, action: block}
  - id: less-flattery
    trait: sycophancy
    layer: 8
    threshold: {fpr: 0.01}
    action: {steer: {operator: ablate, layers: [4]}}
"""
FLAGS = (
    *("--worker-extension-cls", "guardrail_vllm.worker.GuardExtension"),
    *("--logits-processors", "guardrail_vllm.worker:GuardLogits"),
)
MIDDLEWARE = ("--middleware", "guardrail_vllm.serving.GuardMiddleware")


def test_policies_that_vllm_cannot_carry_out_end_the_server(serving, tmp_path):
    with serving(tmp_path, policies=POLICIES) as server:
        assert server.process.wait(300) != 0
        assert (
            "the guard cannot start: a policy steers layer 4, below layer 8, the last one read" in server.log
        )
        assert "Application startup complete" not in server.log


def test_without_the_middleware_every_request_is_refused(serving, tmp_path):
    with serving(tmp_path, flags=(*FLAGS, "--enforce-eager")) as server:
        server.wait()
        with pytest.raises(openai.BadRequestError, match="it did not come through the guard"):
            server.ask([{"role": "user", "content": "Hello"}])


def test_a_server_that_compiles_its_layers_decides_as_one_that_does_not(serving, server, tmp_path):
    # what vLLM's own tests on CPUs set: layers are traced, and no machine code is made of them
    with serving(tmp_path, flags=(*FLAGS, *MIDDLEWARE), VLLM_CPU_CI_ENV="1") as compiled:
        compiled.wait()
        for stop in TOUR:
            (ours, reply), (theirs, other) = (one.ask(stop.messages) for one in (compiled, server))
            assert ours["x-guardrail-action"] == theirs["x-guardrail-action"] == stop.expected
            assert reply.choices[0].message.content == other.choices[0].message.content
