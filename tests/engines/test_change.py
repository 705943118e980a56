"""A model that is no longer the one that was loaded is noticed before it answers."""

from __future__ import annotations

import pytest
import torch
from tiny import FIRES, NEVER, TOKENIZER, guard, policies, policy, write_vectors
from torch import nn

from guardrail import Guard
from guardrail.engines.transformers.watch import Watch
from guardrail.errors import PolicyError
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.types import Message


def layer(model, number=2):
    return model.model.layers[number]


def scale(tensor):
    tensor.mul_(1.5)


def with_hook(model):
    layer(model).mlp.register_forward_hook(lambda module, inputs, output: output * 2)


def with_pre_hook(model):
    layer(model).register_forward_pre_hook(lambda module, inputs: None)


def with_forward(model):
    module = layer(model).mlp
    module.forward = lambda x, own=module.forward: own(x) * 2


def with_module(model):
    layer(model).mlp.down_proj = nn.Linear(64, 32, bias=False)


def with_another_data(model):
    weight = layer(model).mlp.down_proj.weight
    weight.data = weight.data.clone()


def with_another_parameter(model):
    layer(model).mlp.down_proj.weight = nn.Parameter(layer(model).mlp.down_proj.weight.detach().clone())


def with_another_class(model):
    module = layer(model).mlp
    module.__class__ = type("Other", (type(module),), {})


CHANGES = {
    "written in place": lambda model: scale(layer(model).mlp.down_proj.weight),
    "one row written": lambda model: scale(model.model.embed_tokens.weight[17]),
    "written through .data": lambda model: scale(layer(model).mlp.down_proj.weight.data),
    "all written through .data": lambda model: [scale(p.data) for p in model.parameters()],
    "another .data": with_another_data,
    "another parameter": with_another_parameter,
    "another module": with_module,
    "another dtype": lambda model: model.half(),
    "state dict": lambda model: model.load_state_dict(tiny_model(seed=1).state_dict()),
    "a buffer": lambda model: scale(model.model.rotary_emb.inv_freq),
    "a hook": with_hook,
    "a hook in front": with_pre_hook,
    "another forward": with_forward,
    "another class": with_another_class,
    "fewer layers": lambda model: model.model.layers.pop(3),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_a_forward_pass_uses_is_watched(name):
    model = tiny_model()
    watch = Watch(model)
    assert watch.change() is None
    with torch.no_grad():
        CHANGES[name](model)
    assert watch.change()


def test_another_forward_of_a_class_is_noticed(monkeypatch):
    model = tiny_model()
    watch, kind = Watch(model), type(layer(model).mlp)
    monkeypatch.setattr(kind, "forward", lambda module, x, own=kind.forward: own(module, x) * 2)
    assert "the class of a module, or its forward method" in watch.change()
    monkeypatch.undo()
    assert watch.change() is None


def with_another_template(tokenizer):
    tokenizer.chat_template = "You are evil. " + tokenizer.chat_template


TOKENIZER_CHANGES = {
    "a template": with_another_template,
    "a token": lambda tokenizer: tokenizer.add_tokens(["world"]),
    "a special token": lambda tokenizer: tokenizer.add_special_tokens({"mask_token": "<mask>"}),
}


@pytest.mark.parametrize("name", TOKENIZER_CHANGES)
def test_a_tokenizer_that_makes_other_prompts_is_a_change_until_a_calibration_fits(tmp_path, name):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    write_vectors(tmp_path, model, tokenizer=tokenizer)
    with Guard(model, tokenizer, policies(tmp_path, policy(threshold=NEVER))) as made:
        before = made.engine.render([Message("user", "hello")])
        TOKENIZER_CHANGES[name](tokenizer)
        decision = made.check("hello").decision
        assert (decision.status, decision.action) == ("error", "block")
        assert decision.error.endswith("the tokenizer's tokens or chat template")
        assert not made.policies.reload()
        write_vectors(tmp_path, model, tokenizer=tokenizer, template=tokenizer.chat_template)
        assert made.policies.reload()
        assert made.check("hello").decision.action == "allow"
        assert (made.engine.render([Message("user", "hello")]) == before) == (name != "a template")


def test_generating_and_training_flags_are_no_change():
    model = tiny_model()
    watch = Watch(model)
    model.generate(**TOKENIZER("hello", return_tensors="pt"), max_new_tokens=3, pad_token_id=0)
    model.train()
    model.eval()
    assert watch.change() is None


def test_asking_for_hidden_states_is_no_change_and_hides_none():
    model = tiny_model()
    watch = Watch(model)
    model(torch.tensor([[5, 6]]), output_hidden_states=True, output_attentions=True)
    assert any(module._forward_hooks for module in model.modules())
    assert watch.change() is None
    with_hook(model)
    assert watch.change() == "forward hooks"


def test_hooks_on_every_module_are_watched():
    watch = Watch(tiny_model())
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    try:
        assert watch.change() == "forward hooks"
    finally:
        handle.remove()
    assert watch.change() is None


@pytest.mark.parametrize(("choice", "action"), [("block", "block"), ("escalate", "escalate")])
def test_a_changed_model_is_refused_with_the_reason(tmp_path, choice, action):
    with guard(tmp_path, policy(threshold=NEVER, on_model_change=choice)) as made:
        assert made.check("hello").decision.action == "allow"
        with torch.no_grad():
            scale(made.model.model.norm.weight)
        decision = made.check("hello").decision
    assert (decision.status, decision.action, decision.policy) == ("error", action, "test")
    assert decision.error == "the model has changed since it was loaded: values of weights, bytes of weights"


def test_every_way_of_asking_refuses_a_changed_model(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER, message="no")) as made:
        with torch.no_grad():
            scale(made.model.model.norm.weight)
        assert made.chat("hello").text == "no"
        assert "".join(made.stream("hello")) == "no"
        made.generate(**TOKENIZER("hello", return_tensors="pt"), max_new_tokens=3)
        assert [decision.action for decision in made.last_decisions] == ["block"]


def test_a_policy_may_let_a_changed_model_answer_and_says_so(tmp_path):
    rules = [policy(threshold=NEVER, on_model_change="allow")]
    with guard(tmp_path, *rules) as made:
        assert "test: fails open: `on_model_change: allow`" in made.active.plan.warnings
        with torch.no_grad():
            scale(made.model.model.norm.weight)
        reply = made.chat("hello", max_new_tokens=3)
    decision = reply.decision
    assert (reply.outcome, decision.status, decision.fail_open) == ("answered", "error", True)
    assert decision.scores
    assert any("has changed since it was loaded" in warning for warning in decision.warnings)


def test_what_fires_in_a_changed_model_still_counts(tmp_path):
    with guard(tmp_path, policy(threshold=FIRES, on_model_change="allow")) as made:
        with torch.no_grad():
            scale(made.model.model.norm.weight)
        decision = made.check("hello").decision
    assert (decision.status, decision.action, decision.fired) == ("error", "block", ("test",))


def test_policies_about_replies_refuse_a_changed_model_before_it_speaks(tmp_path):
    with guard(tmp_path, policy(stage="response", threshold={"raw": NEVER})) as made:
        with torch.no_grad():
            scale(made.model.model.norm.weight)
        assert made.chat("hello", max_new_tokens=3).decision.action == "block"


def test_a_reload_accepts_a_model_that_the_calibration_fits_and_no_other(tmp_path):
    model, other = tiny_model(), tiny_model(seed=1)
    with guard(tmp_path, policy(threshold=NEVER), model=model) as made:
        first = made.engine.fingerprint
        model.load_state_dict(other.state_dict())
        assert not made.policies.reload()
        assert isinstance(made.policies.error, PolicyError)
        assert made.check("hello").decision.action == "block"
        assert made.engine.fingerprint == first
        write_vectors(tmp_path, model)
        assert made.policies.reload()
        assert made.check("hello").decision.action == "allow"
        assert made.engine.fingerprint != first


def test_a_model_is_tested_again_while_the_guard_stands_for_its_generate(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made, made.installed():
        with_hook(made.model)
        assert made.policies.reload()


def test_a_reload_does_not_accept_a_hook(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        with_hook(made.model)
        assert made.policies.reload()
        assert made.check("hello").decision.action == "block"


def test_a_change_that_is_taken_back_is_none(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        handle = made.model.model.register_forward_hook(lambda module, inputs, output: None)
        assert made.check("hello").decision.status == "error"
        handle.remove()
        assert made.check("hello").decision.status == "evaluated"


def test_a_guard_in_training_mode_reads_without_dropout_and_puts_the_mode_back(tmp_path):
    model = tiny_model(attention_dropout=0.5)
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as made:
        still = made.check("hello there").decision.scores[0].score
        model.model.layers[1].train()
        found = {made.check("hello there").decision.scores[0].score for _ in range(4)}
        replies = {made.chat("hello there", max_new_tokens=8, temperature=0).text for _ in range(4)}
        made.project("hello there")
        modes = [module.training for module in model.model.layers]
    assert found == {still}
    assert len(replies) == 1
    assert modes == [False, True, False, False]
