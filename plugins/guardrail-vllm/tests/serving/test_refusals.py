"""What cannot be guarded in vLLM is refused, with the reason, and never runs unguarded."""

import pytest
from guardrail_vllm.fingerprint import fingerprint
from guardrail_vllm.model import VllmModel
from guardrail_vllm.plan_limits import check_plan
from guardrail_vllm.serving.prompts import incoming
from guardrail_vllm.serving.start import EXTENSION, LOGITS, check_flags, policies
from guardrail_vllm.worker.blocks import Stream, decoder_layers
from guardrail_vllm.worker.checks import check
from guardrail_vllm.worker.logits import GuardLogits
from torch import nn
from vllm.config import CUDAGraphMode
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams

from guardrail import demo
from guardrail.errors import ConfigError, ModelError
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.vectors.values import TraitVectors

NGRAMS = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
CONNECTOR = {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def configuration(**arguments):
    """As vLLM makes it of its arguments."""
    arguments = {"model": str(demo.MODEL), "enforce_eager": True, **arguments}
    return AsyncEngineArgs(**arguments).create_engine_config()


def test_an_ordinary_configuration_is_taken():
    check(configuration(worker_extension_cls=EXTENSION, logits_processors=[LOGITS]))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"speculative_config": NGRAMS}, "speculative decoding cannot be guarded"),
        ({"runner": "pooling", "convert": "embed"}, "a pooling model generates no reply"),
        ({"pipeline_parallel_size": 2}, "pipeline parallelism cannot be guarded"),
        ({"kv_transfer_config": CONNECTOR}, "a KV connector cannot be guarded"),
    ],
    ids=["speculative", "pooling", "pipeline", "connector"],
)
def test_configurations_that_cannot_be_guarded(arguments, reason):
    with pytest.raises(ModelError, match=reason):
        check(configuration(**arguments))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        # as they are by default on a GPU; on a CPU vLLM does without graphs
        ({"cudagraph_mode": CUDAGraphMode.FULL_AND_PIECEWISE}, "full CUDA graphs .*cudagraph_mode=PIECEWISE"),
        ({"cudagraph_mode": CUDAGraphMode.FULL_DECODE_ONLY}, "full CUDA graphs cannot be guarded"),
        ({"use_inductor_graph_partition": True}, "use_inductor_graph_partition cannot be guarded"),
    ],
)
def test_compiled_code_that_would_not_look_is_refused(settings, reason):
    made = configuration(enforce_eager=False)
    check(made)
    for name, value in settings.items():
        setattr(made.compilation_config, name, value)
    with pytest.raises(ModelError, match=reason):
        check(made)


def test_the_engine_asks_for_graphs_that_can_be_guarded():
    given = VllmModel(str(demo.MODEL), {"enforce_eager": False, "compilation_config": {"backend": "eager"}})
    compilation = given.engine_arguments().compilation_config
    assert (compilation.cudagraph_mode, compilation.backend) == (CUDAGraphMode.PIECEWISE, "eager")
    assert VllmModel(str(demo.MODEL)).engine_arguments().enforce_eager


def test_the_second_model_runner_is_refused(monkeypatch):
    made = configuration()
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(ModelError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        check(made)


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ({}, f"--worker-extension-cls {EXTENSION} and --logits-processors {LOGITS}"),
        ({"logits_processors": [LOGITS]}, f"start it with --worker-extension-cls {EXTENSION}$"),
        ({"worker_extension_cls": EXTENSION}, f"start it with --logits-processors {LOGITS}$"),
    ],
)
def test_a_missing_flag_is_named(arguments, missing):
    with pytest.raises(ConfigError, match=missing):
        check_flags(configuration(**arguments))


@pytest.mark.parametrize("environment", [{}, {"GUARDRAIL_POLICIES": ""}])
def test_policies_have_to_be_named(environment):
    with pytest.raises(ConfigError, match="GUARDRAIL_POLICIES names no policies"):
        policies(environment)


def test_made_up_weights_have_no_vectors():
    with pytest.raises(ModelError, match="made-up weights"):
        fingerprint(configuration(load_format="dummy"), None)


def test_layers_that_are_not_found_are_an_error_that_names_the_model():
    with pytest.raises(ModelError, match="Sequential cannot be guarded in vLLM: 0 lists of 8 decoder layers"):
        decoder_layers(nn.Sequential(nn.Linear(2, 2)), 8)
    with pytest.raises(ModelError, match=r"a decoder layer returned \(str\), not hidden states"):
        Stream(("hidden",))


def test_a_policy_that_steers_below_the_last_layer_read_is_refused():
    model = TraitVectors.load(demo.VECTORS).provenance.fingerprint
    with pytest.raises(ModelError, match="steers layer 6, below layer 8, the last one read"):
        check_plan(load("chatbot", model, Plugins()).plan)


def test_alarms_over_conversations_are_refused():
    model = TraitVectors.load(demo.VECTORS).provenance.fingerprint
    drift = {"id": "d", "trait": "evil", "conversation": {"statistic": "cusum"}, "action": "block"}
    file = {"version": 1, "vectors": "demo", "calibration": "demo", "policies": [drift]}
    with pytest.raises(ModelError, match="alarms over conversations"):
        check_plan(load(file, model, Plugins()).plan)


def test_replayed_tokens_are_refused():
    with pytest.raises(VLLMValidationError, match="cannot be replayed"):
        incoming(None, {"type": "token"}, SamplingParams(trace_decode_token_ids=[5, 6]), None)


def test_a_request_that_did_not_come_through_the_guard_is_refused_where_it_comes_in():
    for extra in (None, {}, {"guardrail": "off"}):
        with pytest.raises(VLLMValidationError, match="did not come through the guard"):
            GuardLogits.validate_params(SamplingParams(extra_args=extra))


@pytest.mark.parametrize(
    ("prompt", "lora", "reason"),
    [
        ({"type": "token", "prompt_token_ids": [1]}, LoRARequest("tuned", 1, "/tuned"), "LoRA adapter"),
        (None, None, "sent while they are answered"),
    ],
)
def test_requests_that_cannot_be_guarded(prompt, lora, reason):
    with pytest.raises(VLLMValidationError, match=reason):
        incoming(None, prompt, SamplingParams(), lora)
