"""Ways in which a prompt that should be blocked could have been answered, each found once and closed."""

import time
from typing import ClassVar

import pytest
import torch
from tiny import CACHE, FIRES, NEVER, TOKENIZER, batch, guard, policies, policy, rewatch, write_vectors
from transformers import DynamicCache, GenerationConfig

from guardrail import Guard, RawPrompt
from guardrail.audit import read
from guardrail.errors import EvaluationError, PolicyError, PromptError, UnsupportedGeneration
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import NoConfig, Otherwise, Retry
from guardrail.testing import tiny_model
from guardrail.types import Message

GREEDY = {"temperature": 0, "max_new_tokens": 4}


@pytest.mark.parametrize("name", ["prefill_chunk_size", "prompt_lookup_num_tokens"])
def test_what_the_models_own_configuration_turns_on_is_refused_too(tmp_path, name):
    with guard(tmp_path, policy()) as made:
        setattr(made.model.generation_config, name, 4)
        with pytest.raises(UnsupportedGeneration):
            made.generate(**batch(1), generation_config=GenerationConfig(max_new_tokens=4))


def test_outputs_follow_the_models_own_configuration(tmp_path):
    with guard(tmp_path, policy(message="No.")) as made:
        made.model.generation_config.num_return_sequences = 2
        made.model.generation_config.do_sample = True
        made.model.generation_config.return_dict_in_generate = True
        output = made.generate(**batch(1), max_new_tokens=4, pad_token_id=0)
    assert len(output.sequences) == 2


class Soft:
    """An action that would rather let things pass."""

    name, strength = "soft", 41
    Config: ClassVar = NoConfig

    def __init__(self, response):
        self.response = response

    def compile(self, config):
        return "stop"

    def respond(self, config, context):
        return self.response


class SoftPlugin:
    def __init__(self, response, review=None):
        self.response, self.asks = response, review

    @hookimpl
    def guardrail_actions(self):
        return [Soft(self.response)]

    @hookimpl
    def guardrail_review(self, decision, messages):
        return self.asks if decision.action == "block" else None


def test_a_reviewing_plugin_cannot_loosen_through_an_action_of_its_own(tmp_path):
    plugin = SoftPlugin(Otherwise("allow"), review="soft")
    with guard(tmp_path, policy(message="No."), options={"plugins": [plugin]}) as made:
        assert made.chat("Hello").text == "No."


def test_an_action_lifts_its_own_policy_and_no_other(tmp_path):
    plugin = SoftPlugin(Retry((Message("user", "Hello again"),), waive=frozenset({"strict", "test"})))
    rules = (policy("soft", when={"min_turns": 1}), policy(id="strict", message="No."))
    with guard(tmp_path, *rules, options={"plugins": [plugin]}) as made:
        assert made.chat("Hello").text == "No."


@pytest.mark.parametrize("response", [None, "hi", Otherwise("foo")])
def test_an_action_that_returns_nonsense_falls_back_to_on_error(tmp_path, response):
    with guard(tmp_path, policy("soft", message="No."), options={"plugins": [SoftPlugin(response)]}) as made:
        assert made.chat("Hello").text == "No."


def test_one_tag_may_be_a_plain_string(tmp_path):
    with guard(tmp_path, policy(when={"tags": ["public"]})) as made:
        assert made.chat("Hello", tags="public").decision.action == "block"


def test_generate_takes_tags_and_a_conversation(tmp_path):
    rules = (policy(when={"tags": ["public"]}), policy(id="half", enforce={"share": 0.5}))
    inputs = {**batch(1), "max_new_tokens": 2, "pad_token_id": 0}
    with guard(tmp_path, *rules) as made:
        made.generate(**inputs, tags=["public"])
        assert made.last_decisions[0].policy == "test"
        found = set()
        for i in range(20):
            made.generate(**inputs, conversation=f"c-{i}")
            found.add(made.last_decisions[0].action)
    assert found == {"allow", "block"}


def test_generate_refuses_prompts_that_are_longer_than_the_context(tmp_path):
    ids = torch.full((1, 600), 70)
    with (
        guard(tmp_path, policy(threshold=NEVER)) as made,
        pytest.raises(PromptError, match="more than the model"),
    ):
        made.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)


@pytest.mark.parametrize(
    "keys",
    [
        {"unsupported_input": "allow"},
        {"action": {"escalate": {"otherwise": "allow"}}},
        {"action": {"rephrase": {"otherwise": "allow"}}},
    ],
)
def test_every_way_of_failing_open_is_said_at_load_and_in_every_decision(tmp_path, keys):
    with guard(tmp_path, policy(**{"threshold": NEVER, **keys})) as made:
        assert any("fails open" in warning for warning in made.active.plan.warnings)
        assert made.check("Hello").decision.fail_open


def test_a_lifted_policy_is_named_in_the_decision(tmp_path):
    with guard(tmp_path, policy({"rephrase": {"otherwise": "allow"}})) as made:
        reply = made.chat("Hello", **GREEDY)
    assert any("test: lifted" in warning for warning in reply.decision.warnings)


def test_a_block_that_is_known_stands_although_it_came_late(tmp_path):
    rule = policy(timeout_ms=10, on_timeout="allow", message="No.")
    with guard(tmp_path, rule) as made:
        made.engine.blocks[0].register_forward_pre_hook(lambda module, args: time.sleep(0.05))
        rewatch(made)
        assert made.chat("Hello").text == "No."


def test_a_shadow_policys_time_limit_limits_nothing(tmp_path):
    rules = (policy(threshold=NEVER), policy(id="watch", mode="shadow", timeout_ms=1))
    with guard(tmp_path, *rules) as made:
        made.engine.blocks[0].register_forward_pre_hook(lambda module, args: time.sleep(0.01))
        rewatch(made)
        assert made.check("Hello").decision.status == "evaluated"


def test_weights_that_were_changed_in_memory_are_another_model(tmp_path):
    from transformers import AutoModelForCausalLM

    tiny_model().save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    write_vectors(tmp_path, model)
    Guard(model, TOKENIZER, policies(tmp_path, policy())).close()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.01)
    with pytest.raises(PolicyError, match="another model"):
        Guard(model, TOKENIZER, policies(tmp_path, policy()))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("layers", [None, [1]])
def test_a_stopped_prompt_leaves_the_callers_cache_as_it_was(tmp_path, earlier, layers):
    steer = policy({"steer": {"operator": "ablate", "layers": layers or [4]}}, id="s", threshold=NEVER)
    model = tiny_model()
    write_vectors(tmp_path, model)
    cache = DynamicCache(config=model.config)
    ids = batch(1)["input_ids"]
    if earlier:
        model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0, **{CACHE: cache})
        ids = torch.cat([ids, ids, ids], dim=1)
    before = [layer.get_seq_length() for layer in cache.layers]
    with Guard(model, TOKENIZER, policies(tmp_path, policy(), steer)) as made:
        made.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            pad_token_id=0,
            **{CACHE: cache},
        )
        assert made.last_decisions[0].action == "block"
    assert [layer.get_seq_length() for layer in cache.layers] == before


def test_two_policies_may_recheck_at_different_layers(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    single = policies(
        tmp_path,
        policy(
            {"steer": {"operator": "add", "coefficient": -50.0, "layers": [3], "recheck": True}},
            threshold=-1.0,
        ),
    )
    both = policies(
        tmp_path,
        policy(
            {"steer": {"operator": "add", "coefficient": -50.0, "layers": [2], "recheck": True}},
            threshold=-1.0,
        ),
        policy(
            {"steer": {"operator": "add", "coefficient": -50.0, "layers": [3], "recheck": True}},
            threshold=-1.0,
            id="b",
        ),
    )
    with Guard(model, TOKENIZER, single) as made:
        alone = [made.chat(text, **GREEDY).decision.action for text in ("one", "two", "three")]
    with Guard(model, TOKENIZER, both) as made:
        together = [made.chat(text, **GREEDY).decision for text in ("one", "two", "three")]
    assert "steer" in alone
    for decision in together:
        assert not any("not finite" in warning for warning in decision.warnings)
    assert any(decision.action == "steer" for decision in together)


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 2.0}, {"seed": "x"}]
)
def test_senseless_sampling_is_the_callers_error_and_no_policys_block(tmp_path, options):
    with guard(tmp_path, policy(threshold=NEVER)) as made, pytest.raises(PromptError):
        made.chat("Hello", **options)


def test_arguments_that_generate_refuses_are_its_own_errors(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made, pytest.raises(ValueError, match="max_new_token"):
        made.generate(**batch(1), max_new_token=5)


def test_a_guard_called_from_inside_its_own_request_is_an_error_not_a_deadlock(tmp_path):
    class Plugin:
        def __init__(self):
            self.error = None

        @hookimpl
        def guardrail_review(self, decision, messages):
            try:
                self.guard.check("Hello")
            except EvaluationError as error:
                self.error = error
            return

    plugin = Plugin()
    with guard(tmp_path, policy(threshold=NEVER), options={"plugins": [plugin]}) as made:
        plugin.guard = made
        assert made.check("Hello").decision.action == "allow"
    assert "inside" in str(plugin.error)


def test_closing_twice_leaves_the_next_guard_alone(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    first = Guard(model, TOKENIZER, policies(tmp_path, policy(message="No.")))
    first.close()
    with Guard(model, TOKENIZER, policies(tmp_path, policy(message="No."))) as second:
        first.close()
        assert second.chat("Hello").text == "No."


def test_allowed_tokens_are_asked_for_by_the_callers_rows(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as scoring:
        scoring.generate(**batch(4), max_new_tokens=1, pad_token_id=0)
        scores = [decision.scores[0].score for decision in scoring.last_decisions]
    middle = sum(sorted(scores)[1:3]) / 2
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=middle))) as made:
        output = made.generate(
            **batch(4),
            max_new_tokens=2,
            pad_token_id=0,
            do_sample=False,
            prefix_allowed_tokens_fn=lambda row, ids: [10 + row],
        )
        passed = [i for i, decision in enumerate(made.last_decisions) if decision.action == "allow"]
    width = batch(4)["input_ids"].shape[1]
    assert len(passed) == 2
    assert [output[i, width].item() for i in passed] == [10 + i for i in passed]


def test_what_generate_said_is_in_the_audit(tmp_path):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log), "text": True}) as made:
        output = made.generate(
            **batch(1), max_new_tokens=5, min_new_tokens=5, pad_token_id=0, do_sample=False
        )
    (record,) = read(log)
    width = batch(1)["input_ids"].shape[1]
    assert (record.new_tokens, record.text) == (
        5,
        TOKENIZER.decode(output[0, width:], skip_special_tokens=True),
    )


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("block", "blocked"),
        ("escalate", "escalated"),
        ("rephrase", "blocked"),
        ({"escalate": {"wait_s": 0.05}}, "blocked"),
    ],
)
def test_a_reply_says_how_it_ended_and_keeps_its_ticket(tmp_path, action, outcome):
    with guard(tmp_path, policy(action, threshold=FIRES)) as made:
        reply = made.chat("Hello")
    assert reply.outcome == outcome
    assert (reply.ticket_id is not None) == ("escalate" in action)


def test_large_batches_are_evaluated_in_parts(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        checks = made.check_many([f"prompt {i}" for i in range(70)])
    assert len({check.audit_id for check in checks}) == 70


def test_a_prompt_without_a_user_turn_is_evaluated_all_the_same(tmp_path):
    with guard(tmp_path, policy(threshold=FIRES)) as made:
        decision = made.check([{"role": "system", "content": "hello"}]).decision
    assert (decision.status, decision.action) == ("evaluated", "block")


@pytest.mark.parametrize("excess", [0, 1])
def test_generate_takes_prompts_up_to_the_whole_context(tmp_path, excess):
    with guard(tmp_path, policy()) as made:
        ids = torch.full((1, made.engine.max_tokens + excess), 70)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if excess:
            with pytest.raises(PromptError, match="1 more than the model"):
                made.generate(**inputs, max_new_tokens=1)
        else:
            made.generate(**inputs, max_new_tokens=1, pad_token_id=0)


def test_the_record_of_a_generate_holds_its_prompt_as_one_message(tmp_path):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(), audit={"jsonl": str(log), "text": True}) as made:
        made.generate(**TOKENIZER("Hello there", return_tensors="pt"), max_new_tokens=4, pad_token_id=0)
    (record,) = read(log)
    assert (record.messages, record.prompt_tokens) == ((Message("user", "Hello there"),), 11)


@pytest.mark.parametrize("when", [{"min_turns": 2}, {"last_role": "tool"}])
def test_a_policy_about_turns_applies_where_nobody_can_count_them(tmp_path, when):
    with guard(tmp_path, policy(when=when)) as made:
        assert made.chat("one turn", **GREEDY).decision.status == "not_evaluated"
        raw = made.check(RawPrompt("one text")).decision
        made.generate(**batch(1), max_new_tokens=2, pad_token_id=0)
        for decision in (raw, made.last_decisions[0]):
            assert (decision.action, decision.policy) == ("block", "test")
            assert any("turns are unknown" in warning for warning in decision.warnings)
