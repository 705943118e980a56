import subprocess
import sys

import numpy as np
import pytest

from guardrail.errors import ConfigError, EscalationError
from guardrail.plugins.audit import AuditSink
from guardrail.plugins.protocols import EscalationSink
from guardrail.policy.decide import decide
from guardrail.testing import (
    ARCHITECTURES,
    MemoryAudit,
    MemoryQueue,
    audit_record,
    hand_made_plan,
    hand_made_vectors,
    ticket,
    tiny_guard,
    tiny_model,
    tiny_tokenizer,
)
from guardrail.types import Facts


@pytest.mark.parametrize("text", ["", "Hello", " two  spaces\n\ttab", "Žluťoučký 日本 😀", "\x00\x7f"])
def test_the_tiny_tokenizer_loses_nothing(text):
    tokenizer = tiny_tokenizer()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_keeps_turns_apart():
    tokenizer = tiny_tokenizer()
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>s<|end|><|user|>u<|end|><|assistant|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 8
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tiny_model_generates_and_repeats_itself_from_its_seed(architecture):
    tokenizer = tiny_tokenizer()
    inputs = tokenizer("a prompt that is longer than the sliding window", return_tensors="pt")
    replies = []
    for _ in range(2):
        model = tiny_model(architecture, layers=2)
        assert model.config.num_hidden_layers == 2
        replies.append(model.generate(**inputs, max_new_tokens=4, do_sample=False).tolist())
    assert replies[0] == replies[1]


def test_tiny_models_leave_the_global_random_state_alone():
    import torch

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    tiny_model(seed=5)
    assert torch.rand(1) == expected


def test_an_unknown_architecture_is_named_with_the_ones_that_exist():
    with pytest.raises(ConfigError, match="no tiny `t5`; available: llama"):
        tiny_model("t5")


def test_hand_made_vectors_read_one_coordinate_each():
    vectors = hand_made_vectors(("evil", "humor"))
    assert vectors["evil"].probe[2][0] == 1.0
    assert vectors["humor"].probe[2][1] == 1.0
    assert vectors["evil"].cosine(vectors["humor"])[1] == 0.0


def test_the_hand_made_plan_reads_coordinate_zero():
    plan = hand_made_plan(threshold=1.5, message="No.")
    (terms,) = plan.terms(2)
    weights, offsets = terms.weights, terms.offsets
    state = np.full(32, 0.5, np.float32)
    state[0] = 1.5
    scores = weights @ state + offsets
    assert scores.tolist() == [1.5]
    assert decide(plan, scores.tolist(), Facts()).action == "block"
    assert decide(plan, [1.4], Facts()).action == "allow"


@pytest.mark.parametrize(("threshold", "action"), [(-1e6, "block"), (1e6, "allow")])
def test_the_tiny_guard_decides_by_its_hand_made_vectors(tmp_path, threshold, action):
    policy = {"id": "test", "trait": "evil", "layer": 2, "threshold": {"raw": threshold}, "action": "block"}
    with tiny_guard(tmp_path, {"policies": [policy]}) as guard:
        assert guard.check("Hello").decision.action == action


def test_memory_sinks_satisfy_the_protocols_and_can_fail():
    sink, queue = MemoryAudit(), MemoryQueue()
    assert isinstance(sink, AuditSink)
    assert isinstance(queue, EscalationSink)
    sink.decided(audit_record())
    queue.open(ticket())
    assert sink.events == [("decided", "r-1")]
    assert queue.resolve("t-1", True, "ann").state == "approved"
    assert queue.pending() == []
    with pytest.raises(EscalationError, match="approved"):
        queue.resolve("t-1", False, "bob")
    with pytest.raises(OSError, match="no space"):
        MemoryAudit(failing=True).decided(audit_record())
    with pytest.raises(OSError, match="down"):
        MemoryQueue(failing=True).open(ticket())


def test_importing_the_fakes_loads_no_torch():
    code = "import sys, guardrail.testing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
