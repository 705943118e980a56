"""The guarded model's own `generate`: guarded if the guard is installed, else noticed."""

import copy
import pickle
import threading
import warnings
from contextlib import ExitStack

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import NEVER, TOKENIZER, batch, guard, policies, policy, write_vectors
from transformers import GenerationConfig, LogitsProcessor, TextIteratorStreamer, pipeline

from guardrail import Guard
from guardrail.errors import (
    EvaluationError,
    GuardClosed,
    UnguardedCall,
    UnsupportedGeneration,
)
from guardrail.pipeline.installation import UnguardedWarning
from guardrail.testing import tiny_model

GREEDY = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 0}
REFUSAL = policy(message="No.")


def text(output):
    return TOKENIZER.decode(output[0, batch(1)["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_pipeline_and_a_thread_with_a_streamer_are_guarded_as_they_are(tmp_path):
    with guard(tmp_path, REFUSAL) as made, made.installed():
        asked = pipeline("text-generation", model=made.model, tokenizer=TOKENIZER)
        said = asked("hello", return_full_text=False, max_new_tokens=5, do_sample=False)
        streamer = TextIteratorStreamer(TOKENIZER, True, timeout=20.0, skip_special_tokens=True)
        inputs = {**batch(1), **GREEDY, "streamer": streamer}
        thread = threading.Thread(target=made.model.generate, kwargs=inputs, daemon=True)
        thread.start()
        streamed = "".join(streamer)
        thread.join()
    assert said[0]["generated_text"] == "No."
    assert streamed == "No."


def test_an_allowed_reply_through_the_installed_generate_is_the_models(tmp_path):
    expected = tiny_model().generate(**batch(2), **GREEDY)
    with guard(tmp_path, policy(threshold=NEVER)) as made, made.installed():
        assert torch.equal(made.model.generate(**batch(2), **GREEDY), expected)
        assert [decision.action for decision in made.last_decisions] == ["allow", "allow"]
        by_place = made.model.generate(batch(1)["input_ids"], GenerationConfig(**GREEDY))
        assert torch.equal(by_place, tiny_model().generate(**batch(1), **GREEDY))


def test_a_plain_generate_warns_once_and_is_the_models_own(tmp_path):
    with guard(tmp_path, REFUSAL) as made:
        with pytest.warns(UnguardedWarning, match="guard.install") as caught:
            first = made.model.generate(**batch(1), **GREEDY)
        assert caught[0].filename == __file__
        assert torch.equal(made.model.generate(**batch(1), **GREEDY), first)
    assert torch.equal(first, tiny_model().generate(**batch(1), **GREEDY))


@pytest.mark.parametrize("saved", [True, False], ids=["saved before", "of the class"])
def test_a_generate_that_goes_past_the_guard_is_noticed_as_well(tmp_path, saved):
    model = tiny_model()
    own = model.generate if saved else lambda **inputs: type(model).generate(model, **inputs)
    inputs = {**batch(1), **GREEDY}
    with guard(tmp_path, REFUSAL, model=model) as made:
        with pytest.warns(UnguardedWarning, match="is not evaluated"):
            first = own(**inputs)
        assert torch.equal(own(**inputs), first)
        with made.installed(), pytest.raises(UnguardedCall, match="would bypass the guard"):
            own(**inputs)
        assert text(made.generate(**inputs)) == "No."
    own(**inputs)


def test_policies_may_forbid_calls_that_go_past_the_guard(tmp_path):
    model = tiny_model()
    own = model.generate
    with guard(tmp_path, REFUSAL, model=model, unguarded_calls="error"):
        with pytest.raises(UnguardedCall):
            own(**batch(1), **GREEDY)
        with pytest.warns(UnguardedWarning):
            copied = copy.deepcopy(model)
        copied.generate(**batch(1), **GREEDY)  # another model, which no guard holds


def test_policies_may_forbid_plain_calls(tmp_path):
    with guard(tmp_path, REFUSAL, unguarded_calls="error") as made:
        for name in ("generate", "init_continuous_batching"):
            with pytest.raises(UnguardedCall, match=name):
                getattr(made.model, name)(**batch(1))
        assert made.chat("Hello").text == "No."
        assert text(made.generate(**batch(1), **GREEDY)) == "No."


def test_what_cannot_be_guarded_is_refused_while_installed(tmp_path):
    with guard(tmp_path, REFUSAL) as made, made.installed(), pytest.raises(UnsupportedGeneration):
        made.model.generate_batch([[1, 2, 3]])


def test_installing_ends_with_its_block_and_with_the_guard(tmp_path):
    model = tiny_model()
    with guard(tmp_path, REFUSAL, model=model) as made:
        with made.installed() as same:
            assert same is made
        with pytest.warns(UnguardedWarning):
            model.generate(**batch(1), **GREEDY)
        assert made.install() is made
        assert text(model.generate(**batch(1), **GREEDY)) == "No."
    assert not {"generate", "init_continuous_batching"} & set(vars(model))
    model.generate(**batch(1), **GREEDY)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_guarded_model_is_not_guarded_and_whoever_makes_one_is_told(tmp_path, copied):
    with guard(tmp_path, REFUSAL) as made, made.installed():
        with pytest.warns(UnguardedWarning, match="make a guard for it"):
            bare = copied(made.model)
        assert torch.equal(bare.generate(**batch(1), **GREEDY), tiny_model().generate(**batch(1), **GREEDY))
        assert text(made.model.generate(**batch(1), **GREEDY)) == "No."
    copied(made.model)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_guard_cannot_be_copied(tmp_path, copied):
    with guard(tmp_path, REFUSAL) as made, pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(made)


def test_a_block_that_ends_takes_nothing_from_another_that_goes_on(tmp_path):
    with guard(tmp_path, REFUSAL) as made, ExitStack() as first, ExitStack() as second:
        first.enter_context(made.installed())
        second.enter_context(made.installed())
        first.close()
        assert text(made.model.generate(**batch(1), **GREEDY)) == "No."
        made.install()
        second.close()
        assert text(made.model.generate(**batch(1), **GREEDY)) == "No."


def test_a_guards_generate_put_on_the_model_by_hand_works_and_leaves_with_the_guard(tmp_path):
    model = tiny_model()
    with guard(tmp_path, REFUSAL, model=model) as made:
        model.generate = made.generate
        assert text(model.generate(**batch(1), **GREEDY)) == "No."
        assert made.chat("Hello").text == "No."
    assert "generate" not in vars(model)


def test_somebody_elses_generate_stays_when_the_guard_leaves(tmp_path):
    model = tiny_model()
    with guard(tmp_path, REFUSAL, model=model) as made:
        model.generate = own = lambda **_: "mine"
        assert text(made.generate(**batch(1), **GREEDY)) == "No."
    assert model.generate is own


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_wrapper_of_an_adapter_is_installed_too(tmp_path):
    model = get_peft_model(tiny_model(), LoraConfig(target_modules=["q_proj"]))
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, REFUSAL)) as made:
        with pytest.warns(UnguardedWarning):
            plain = model.generate(**batch(1), **GREEDY)
        with made.installed():
            assert text(model.generate(**batch(1), **GREEDY)) == "No."
            assert text(model.get_base_model().generate(**batch(1), **GREEDY)) == "No."
    assert torch.equal(model.generate(**batch(1), **GREEDY), plain)


class Nested(LogitsProcessor):
    def __init__(self, model):
        self.model, self.errors = model, []

    def __call__(self, ids, scores):
        try:
            self.model.generate(**batch(1), **GREEDY)
        except EvaluationError as error:
            self.errors.append(str(error))
        return scores


def test_a_generate_inside_a_guarded_one(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        nested = Nested(made.model)
        expected = tiny_model().generate(**batch(1), **GREEDY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnguardedWarning)
            assert torch.equal(made.generate(**batch(1), **GREEDY, logits_processor=[nested]), expected)
        assert nested.errors == []
        with made.installed():
            assert torch.equal(made.generate(**batch(1), **GREEDY, logits_processor=[nested]), expected)
        assert len(nested.errors) == 5
        assert all("inside" in error for error in nested.errors)


def test_a_closed_guard_on_a_model_says_so(tmp_path):
    with guard(tmp_path, REFUSAL) as made:
        generate = made.generate
    with pytest.raises(GuardClosed):
        generate(**batch(1))
