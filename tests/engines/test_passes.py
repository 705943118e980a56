"""Whose pass a look meets: the request's own, whatever else goes through the same blocks at the same time."""

import copy
import io
import threading

import pytest
import torch
from pairs import EXECUTORS, in_pairs
from tiny import TOKENIZER, Fixed, batch, engine, generate, plan, policies, policy, steering, write_vectors
from transformers import GenerationMixin, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from guardrail import Guard
from guardrail.engines import Prompt
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.errors import EvaluationError, ModelError
from guardrail.testing import tiny_model

pytestmark = pytest.mark.usefixtures("executors")

OTHER = TOKENIZER("something else entirely", return_tensors="pt")["input_ids"]
GREEDY = {"do_sample": False, "min_new_tokens": 6}
FIVE = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 0}
STEER = steering("add", (2, 3, 4), scale=30.0)


def model(made):
    return made(OTHER).logits


def decoder(made):
    return made.model(OTHER).last_hidden_state


def generation(made):
    return GenerationMixin.generate.__wrapped__(made, OTHER, **FIVE)


def blocks(made):
    hidden = made.model.embed_tokens(OTHER)
    places = torch.arange(OTHER.shape[1])[None]
    for block in made.model.layers:
        hidden = block(hidden, position_embeddings=made.model.rotary_emb(hidden, places))
    return hidden


WAYS = {"model": model, "decoder": decoder, "blocks": blocks}


class Elsewhere:
    """Passes in other threads. Those that have to wait are still there when the request goes on."""

    def __init__(self, way, made):
        self.way, self.made = way, made
        self.threads, self.found = [], []

    def __call__(self, *_):
        thread = threading.Thread(target=self._run)
        thread.start()
        self.threads.append(thread)
        thread.join(0.05)

    @torch.no_grad()
    def _run(self):
        self.found.append(self.way(self.made))

    def outputs(self):
        for thread in self.threads:
            thread.join()
        return self.found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@torch.no_grad()
def test_a_pass_of_another_thread_is_neither_scored_nor_waited_for_in_vain(way):
    active, inputs, alone, beside = plan((2, 3)), {**batch(2), **GREEDY}, Fixed(), Fixed()
    with engine() as (made, bare):
        expected = generate(made, active, alone, **inputs).output
        elsewhere = Elsewhere(way, made.model)
        for block in (made.blocks[0], made.blocks[2]):
            block.register_forward_pre_hook(lambda *_: in_guarded_thread(elsewhere))
        output = generate(made, active, beside, **inputs).output
        found = elsewhere.outputs()
        right = way(bare)
    assert beside.readings == alone.readings
    assert torch.equal(output, expected)
    assert len(found) > 2
    assert all(torch.equal(one, right) for one in found)


def in_guarded_thread(call):
    if threading.current_thread() is threading.main_thread():
        call()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@torch.no_grad()
def test_a_pass_of_another_thread_is_not_steered(way):
    active, inputs = plan((2,), STEER), {**batch(2), **GREEDY}
    with engine() as (made, bare):
        expected = generate(made, active, Fixed(("steer",), (STEER,)), **inputs).output
        elsewhere = Elsewhere(way, made.model)
        made.blocks[2].register_forward_pre_hook(lambda *_: in_guarded_thread(elsewhere))
        output = generate(made, active, Fixed(("steer",), (STEER,)), **inputs).output
        found = elsewhere.outputs()
        right = way(bare)
    assert torch.equal(output, expected)
    assert not torch.equal(output, bare.generate(**inputs, max_new_tokens=6, pad_token_id=0))
    assert len(found) > 5
    assert all(torch.equal(one, right) for one in found)


class Asking(LogitsProcessor):
    """Asks the model about something else before each token."""

    def __init__(self, way, made):
        self.way, self.made, self.found = way, made, []

    def __call__(self, ids, scores):
        self.found.append(self.way(self.made))
        return scores


@in_pairs(executors=EXECUTORS, way=WAYS, action=["allow", "steer"])
@torch.no_grad()
def test_passes_of_a_logits_processor_are_not_the_requests(way, action):
    active, inputs = plan((2,), STEER), {**batch(2), **GREEDY}
    with engine() as (made, bare):
        expected = generate(made, active, Fixed((action,), (STEER,)), **inputs).output
        asking = Asking(way, made.model)
        output = generate(
            made,
            active,
            Fixed((action,), (STEER,)),
            **inputs,
            logits_processor=LogitsProcessorList([asking]),
        ).output
        right = way(bare)
    assert torch.equal(output, expected)
    assert len(asking.found) == 6
    assert all(torch.equal(one, right) for one in asking.found)


def test_another_generate_inside_a_guarded_one_is_an_error_with_a_name():
    with engine() as (made, _):
        asking = LogitsProcessorList([Asking(generation, made.model)])
        with pytest.raises(EvaluationError, match="inside a guarded one"):
            generate(made, plan((2,)), Fixed(), **batch(1), **GREEDY, logits_processor=asking)


class Curious(Fixed):
    """Asks the model about something else while it decides, as a reviewing plugin may."""

    def ask(self, way, made):
        self.way, self.made, self.found = way, made, []
        return self

    def decide(self, row, readings):
        self.found.append(self.way(self.made))
        return super().decide(row, readings)


@in_pairs(executors=EXECUTORS, way={**WAYS, "generation": generation}, action=["allow", "steer"])
@torch.no_grad()
def test_passes_of_a_plugin_that_decides_are_not_the_requests(way, action):
    active, inputs = plan((2,), STEER), {**batch(2), **GREEDY}
    with engine() as (made, bare):
        alone = Fixed((action,), (STEER,))
        expected = generate(made, active, alone, **inputs).output
        curious = Curious((action,), (STEER,)).ask(way, made.model)
        output = generate(made, active, curious, **inputs).output
        right = way(bare)
    assert curious.readings == alone.readings
    assert torch.equal(output, expected)
    assert [torch.equal(one, right) for one in curious.found] == [True, True]


@pytest.mark.parametrize("way", [model, decoder])
@torch.no_grad()
def test_passes_of_a_users_hook_are_not_the_requests(way):
    active, inputs, alone, beside = plan((2, 3)), {**batch(1), **GREEDY}, Fixed(), Fixed()
    with engine() as (made, bare):
        expected, found, inside = generate(made, active, alone, **inputs).output, [], []

        def hook(*_):
            if not inside:
                inside.append(True)
                found.append(way(made.model))
                inside.clear()

        made.model.model.embed_tokens.register_forward_hook(hook)
        made.blocks[1].register_forward_hook(hook)
        output = generate(made, active, beside, **inputs).output
        right = way(bare)
    assert beside.readings == alone.readings
    assert torch.equal(output, expected)
    assert len(found) == 12
    assert all(torch.equal(one, right) for one in found)


def test_a_block_that_comes_twice_in_one_pass_is_an_error():
    with engine() as (made, _):
        again = []

        def hook(block, args, kwargs, output):
            if not again:
                again.append(True)
                block(*args, **kwargs)

        made.blocks[1].register_forward_hook(hook, with_kwargs=True)
        with pytest.raises(EvaluationError, match="twice"):
            made.check([Prompt((5, 6, 7))], plan((2, 3)), Fixed(), lambda event: None)


def test_a_request_from_within_a_pass_of_the_same_model_is_an_error_and_no_deadlock(tmp_path):
    made_by, errors = tiny_model(), []
    write_vectors(tmp_path, made_by)
    with Guard(made_by, TOKENIZER, policies(tmp_path, policy())) as made:

        def hook(*_):
            for ask in (made.check, made.chat, lambda _: made.generate(OTHER)):
                with pytest.raises(EvaluationError, match="inside") as caught:
                    ask("Hello")
                errors.append(caught.value)

        handle = made.engine.blocks[0].register_forward_hook(hook)
        made_by(OTHER)
        handle.remove()
    assert len(errors) == 3


# --- blocks that are guarded already -------------------------------------------------------------------


def sharing(owner):
    """Another model around the first half of a model's blocks."""
    config = copy.deepcopy(owner.config)
    config.num_hidden_layers = 2
    made = LlamaForCausalLM(config).eval()
    made.model.layers = torch.nn.ModuleList(owner.model.layers[:2])
    return made


def test_blocks_that_are_guarded_are_refused_whoever_owns_the_model_around_them():
    with engine() as (made, _):
        other = sharing(made.model)
        with pytest.raises(ModelError, match="another guard"):
            TransformersEngine(other, TOKENIZER)
        assert "forward" not in other.__dict__
    TransformersEngine(other, TOKENIZER).close()


def test_a_copy_of_a_guarded_model_is_a_model_of_its_own():
    with engine() as (made, bare):
        generate(made, plan((2,)), Fixed(), **batch(1))
        file = io.BytesIO()
        torch.save(made.model, file)
        file.seek(0)
        copies = [copy.deepcopy(made.model), torch.load(file, weights_only=False)]
        torch.nn.init.zeros_(made.model.model.embed_tokens.weight)
        right = bare(OTHER).logits
        for one in copies:
            assert torch.equal(one(OTHER).logits, right)
            assert torch.equal(one.generate(OTHER, **FIVE), bare.generate(OTHER, **FIVE))
            TransformersEngine(one, TOKENIZER).close()
