"""The engine that batches: the same readings, decisions and tokens as each request has alone."""

import copy
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from following import ALWAYS, Following, following
from patience import wait_for
from tiny import TEXTS, TOKENIZER, Fixed, plan, steering

from guardrail.engines import Prompt, Scored, Token, accept
from guardrail.engines.transformers.continuous import manager
from guardrail.engines.transformers.continuous.engine import BatchingEngine
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.hooks import Hooked
from guardrail.errors import EvaluationError, ModelError, UnsupportedGeneration
from guardrail.testing import tiny_model
from guardrail.types import Probe, ProbeSite, Sampling

GREEDY = Sampling(max_new_tokens=8, temperature=0)
PROMPTS = [Prompt(tuple(TOKENIZER(text)["input_ids"])) for text in TEXTS]
READ = plan((2, 3))
ARCHITECTURES = ("llama", "qwen2", "gemma3_text", "mistral")


def nothing(event):
    pass


@contextmanager
def pair(architecture="llama", **overrides):
    """A batching engine, and another engine around a copy of its model."""
    model = tiny_model(architecture, **overrides)
    alone = TransformersEngine(copy.deepcopy(model), TOKENIZER, None, None, Hooked, Hooked)
    batching = BatchingEngine(model, TOKENIZER)
    try:
        yield batching, alone
    finally:
        batching.close()
        alone.close()


@pytest.fixture(scope="module")
def engines():
    with pair() as made:
        yield made


def one_by_one(engine, evaluator, active, sampling=GREEDY, prompts=PROMPTS):
    """What the other engine says, each prompt in a call of its own."""
    found = []
    for row, prompt in enumerate(prompts):
        own = replace(evaluator, actions=(evaluator.actions[row % len(evaluator.actions)],), readings={})
        found += engine.reply([prompt], active, own, sampling, nothing)
        evaluator.readings[row] = own.readings[0]
    return found


def at_once(engine, evaluator, active, sampling=GREEDY, prompts=PROMPTS):
    """The same from as many threads, so that they share passes."""
    each = [
        replace(evaluator, actions=(evaluator.actions[row % len(evaluator.actions)],), readings={})
        for row in range(len(prompts))
    ]
    with ThreadPoolExecutor(len(prompts)) as pool:
        jobs = [
            pool.submit(engine.reply, [prompt], active, own, sampling, nothing)
            for prompt, own in zip(prompts, each, strict=True)
        ]
        found = [job.result(60)[0] for job in jobs]
    evaluator.readings.update({row: own.readings[0] for row, own in enumerate(each)})
    return found


def assert_equal(found, expected):
    assert [(one.text, one.new_tokens, one.finish) for one in found] == [
        (one.text, one.new_tokens, one.finish) for one in expected
    ]
    assert [one.steered_passes for one in found] == [one.steered_passes for one in expected]
    assert [one.decision.action for one in found] == [one.decision.action for one in expected]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_prompt_reads_and_goes_on_as_alone_also_beside_blocked_and_steered_ones(architecture):
    change = steering("add", (3, 4))
    active = plan((2, 3), change)
    with pair(architecture) as (batching, alone):
        evaluators = [Fixed(actions=("allow", "block", "steer"), steering=(change,)) for _ in range(2)]
        expected = one_by_one(alone, evaluators[0], active)
        assert_equal(at_once(batching, evaluators[1], active), expected)
        for row in range(len(PROMPTS)):
            np.testing.assert_allclose(
                evaluators[1].readings[row], evaluators[0].readings[row], rtol=1e-4, atol=1e-4
            )
    assert {one.new_tokens for one in expected[1::3]} == {0}
    assert all(one.steered_passes == one.new_tokens for one in expected[2::3])


@pytest.mark.parametrize("operator", ["add", "ablate", "cap"])
def test_steering_below_the_last_layer_read_computes_the_last_prompt_token_again(engines, operator):
    batching, alone = engines
    change = steering(operator, (1, 2, 4))
    active = plan((2, 3), change)
    evaluators = [Fixed(actions=("steer", "allow"), steering=(change,)) for _ in range(2)]
    expected = one_by_one(alone, evaluators[0], active)
    assert_equal(at_once(batching, evaluators[1], active), expected)
    assert expected[0].steered_passes == expected[0].new_tokens > 0


def test_a_sliding_window_cannot_be_steered_below_what_is_read():
    with pair("mistral") as (batching, _):
        accept(batching, plan((2,), steering("add", (2, 3))))
        with pytest.raises(ModelError, match="sliding window"):
            accept(batching, plan((2,), steering("add", (1,))))


def test_prompts_that_come_in_pieces_read_the_same_at_every_position(engines):
    batching, alone = engines
    base, rng = plan((2, 3)), np.random.default_rng(0)

    def weights():
        return rng.normal(size=32).astype(np.float32)

    earlier = (ProbeSite(layer=1, position="user_mean", weights=weights(), normalised=True),)
    places = [(2, "last", ()), (3, "user_mean", ()), (3, "prompt_mean", earlier)]
    probes = tuple(
        Probe(trait="evil", layer=layer, weights=weights(), position=position, earlier=sites)
        for layer, position, sites in places
    )
    rule = base.rules[0]
    conditions = tuple(replace(rule.conditions[0], layer=3, reading=i) for i in range(3))
    active = replace(base, probes=probes, rules=(replace(rule, conditions=conditions),))
    rng = np.random.default_rng(1)
    prompts = []
    for length in (300, 20, 411, 256, 257):
        ids = tuple(int(token) for token in rng.integers(5, 90, length))
        spans = {"user_mean": ((3, length - 4),), "prompt_mean": ((0, length),)}
        prompts.append(Prompt(ids, spans=spans))
    evaluators = [Fixed(), Fixed()]
    expected = one_by_one(alone, evaluators[0], active, prompts=prompts)
    assert_equal(at_once(batching, evaluators[1], active, prompts=prompts), expected)
    for row in range(len(prompts)):
        np.testing.assert_allclose(
            evaluators[1].readings[row], evaluators[0].readings[row], rtol=1e-4, atol=1e-4
        )


SAMPLINGS = [
    GREEDY,
    Sampling(max_new_tokens=8, temperature=0.9, seed=1),
    Sampling(max_new_tokens=6, temperature=1.5, top_p=0.8, top_k=20, seed=2),
    Sampling(max_new_tokens=8, temperature=0, frequency_penalty=1.5, logit_bias=((7, 3.0),)),
    Sampling(max_new_tokens=8, temperature=0, logprobs=2),
    Sampling(max_new_tokens=8, temperature=0.7, seed=3, logprobs=1),
]


def test_differently_sampled_requests_share_passes_and_keep_their_own_tokens(engines):
    batching, alone = engines
    todo = [(sampling, prompt) for sampling in SAMPLINGS for prompt in PROMPTS[:4]]

    def reply(engine, sampling, prompt):
        return engine.reply([prompt], READ, Fixed(), sampling, nothing)[0]

    expected = [reply(alone, *case) for case in todo]
    with ThreadPoolExecutor(len(todo)) as pool:
        found = list(pool.map(lambda case: reply(batching, *case), todo))
    assert_equal(found, expected)
    for one, other in zip(found, expected, strict=True):
        assert [x.token for x in one.logprobs] == [x.token for x in other.logprobs]
        assert [x.logprob for x in one.logprobs] == pytest.approx(
            [x.logprob for x in other.logprobs], abs=1e-4
        )


def test_a_stop_text_ends_a_reply_and_its_tokens_stream(engines):
    batching, alone = engines
    whole = alone.reply(PROMPTS[:1], READ, Fixed(), GREEDY, nothing)[0].text
    stopping = replace(GREEDY, stop=whole[3:5])
    expected = alone.reply(PROMPTS[:1], READ, Fixed(), stopping, nothing)
    events = []
    found = batching.reply(PROMPTS[:1], READ, Fixed(), stopping, events.append, stream=True)
    assert_equal(found, expected)
    assert isinstance(events[0], Scored)
    assert "".join(event.text for event in events[1:]) == expected[0].text == whole[:3]


def test_several_replies_to_one_prompt_are_decided_once(engines):
    batching, _ = engines
    evaluator, events = Fixed(), []
    sampling = Sampling(max_new_tokens=6, temperature=1.5, seed=5, n=3)
    (found,) = batching.reply(PROMPTS[:1], READ, evaluator, sampling, events.append, stream=True)
    texts = [found.text, *(other.text for other in found.others)]
    assert len(set(texts)) == 3
    streamed = ["".join(e.text for e in events[1:] if e.number == number) for number in range(3)]
    assert streamed == texts
    assert len(evaluator.readings) == 1  # `Fixed` refuses to decide twice
    (greedy,) = batching.reply(PROMPTS[:1], READ, Fixed(), replace(GREEDY, n=2), nothing)
    assert [other.text for other in greedy.others] == [greedy.text]


RESPONSES = [
    following({"threshold": ALWAYS, "monitor": {"every": 2}}),
    following({"threshold": 0.5, "monitor": {"statistic": "mean", "window": 3, "every": 1}}),
    following(
        {"threshold": ALWAYS, "steering": steering("add", (3, 4))}, {"threshold": 1.0, "mode": "shadow"}
    ),
]


@pytest.mark.parametrize("active", RESPONSES)
def test_replies_are_followed_stopped_and_steered_as_alone(engines, active):
    batching, alone = engines
    made = [[], []]
    for engine, into in zip((alone, batching), made, strict=True):
        evaluators = [Following(plan=active, about=(0,)) for _ in PROMPTS]

        def reply(case, engine=engine):
            return engine.reply([case[0]], active, case[1], GREEDY, nothing)[0]

        cases = list(zip(PROMPTS, evaluators, strict=True))
        if engine is alone:
            into += map(reply, cases)
        else:
            with ThreadPoolExecutor(len(cases)) as pool:
                into += pool.map(reply, cases)
    expected, found = made
    assert_equal(found, expected)
    assert [one.reply_decision.action for one in found] == [one.reply_decision.action for one in expected]


def test_several_replies_cannot_be_followed(engines):
    sampling = Sampling(max_new_tokens=2, temperature=1.0, n=2)
    with pytest.raises(UnsupportedGeneration, match="`n`"):
        engines[0].reply(PROMPTS[:1], RESPONSES[0], Following(plan=RESPONSES[0]), sampling, nothing)


def test_checks_share_a_pass_that_ends_at_the_last_layer_read(engines):
    batching, alone = engines
    passes = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: passes.append(layer))
        for layer, block in enumerate(batching.blocks, 1)
    ]
    evaluators = [Fixed(actions=("allow", "block")) for _ in range(2)]
    events = []
    batching.check(PROMPTS, READ, evaluators[0], events.append)
    for handle in handles:
        handle.remove()
    alone.check(PROMPTS, READ, evaluators[1], nothing)
    assert passes == [1, 2, 3]
    assert [d.action for d in events[0].decisions] == ["allow", "block"] * 4
    for row in range(8):
        np.testing.assert_allclose(
            evaluators[0].readings[row], evaluators[1].readings[row], rtol=1e-4, atol=1e-4
        )


class Broken(Fixed):
    """Fails to decide."""

    def decide(self, row, readings):
        raise ZeroDivisionError


def test_an_error_of_one_request_is_no_other_s(engines):
    batching, _ = engines
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(batching.reply, [prompt], READ, Broken() if i % 2 else Fixed(), GREEDY, nothing)
            for i, prompt in enumerate(PROMPTS)
        ]
        assert [type(job.exception(30)) for job in jobs] == [type(None), ZeroDivisionError] * 4


def test_an_error_of_a_pass_ends_all_in_it_and_the_next_pass_runs(engines):
    batching, _ = engines

    def fail(*_):
        raise torch.OutOfMemoryError("no memory")

    handle = batching.blocks[3].register_forward_pre_hook(fail)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(batching.reply, [p], READ, Fixed(), GREEDY, nothing) for p in PROMPTS]
        assert {type(job.exception(30)) for job in jobs} == {torch.OutOfMemoryError}
    handle.remove()
    assert batching.reply(PROMPTS[:1], READ, Fixed(), GREEDY, nothing)[0].new_tokens == 8
    assert wait_for(lambda: not batching.batches.requests)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_the_manager_has_died_another_takes_over(engines, caplog):
    batching, _ = engines
    ours = batching.batches.manager._ours

    def die(*_):
        raise ValueError("broken scheduler")

    ours.batch_processor.scheduler.schedule_batch = die
    with pytest.raises(EvaluationError, match="broken scheduler"):
        batching.reply(PROMPTS[:1], READ, Fixed(), GREEDY, nothing)
    assert batching.reply(PROMPTS[:1], READ, Fixed(), GREEDY, nothing)[0].new_tokens == 8
    assert batching.batches.manager._ours is not ours


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_frees_its_place_at_once(engines, stream):
    batching, _ = engines
    evaluator, begun = Fixed(), threading.Event()

    class Leaving(Fixed):
        cancelled = False

    leaving = Leaving()

    def emit(event):
        if isinstance(event, Token) or not stream:
            leaving.cancelled = True
            begun.set()

    long = replace(GREEDY, max_new_tokens=400)
    with pytest.raises(CancelledError):
        batching.reply(PROMPTS[:1], READ, leaving, long, emit, stream=stream)
    assert begun.is_set()
    assert wait_for(lambda: not batching.batches.requests)
    assert batching.reply(PROMPTS[:1], READ, evaluator, GREEDY, nothing)[0].new_tokens == 8


def test_a_full_cache_makes_requests_wait_and_throws_none_out(engines, monkeypatch):
    batching, alone = engines
    room = batching.batches._room
    assert wait_for(lambda: not batching.batches.requests)
    # room for two at a time
    monkeypatch.setattr(room, "_free", 2 * 32)
    assert_equal(at_once(batching, Fixed(), READ), one_by_one(alone, Fixed(), READ))
    assert wait_for(lambda: room._free == 64)
    assert not room._waiting


def test_what_cannot_be_batched_is_refused_when_it_is_loaded():
    with pytest.raises(ModelError, match=r"sdpa.*; or use the engine .*--engine transformers"):
        BatchingEngine(tiny_model(attn_implementation="eager"), TOKENIZER)
    with pytest.raises(ModelError, match=r"cannot be batched.*--engine transformers"):
        BatchingEngine(tiny_model("gpt_neox"), TOKENIZER)


def test_a_cache_for_which_there_is_no_memory_is_an_error_of_the_model(monkeypatch):
    monkeypatch.setattr(manager, "CPU_SHARE", 1e9)
    monkeypatch.setattr(manager, "CPU_TOKENS", 1 << 50)
    with pytest.raises(ModelError, match=r"there is no memory .*--engine transformers"):
        BatchingEngine(tiny_model(), TOKENIZER)


def test_a_release_of_transformers_that_batches_otherwise_is_named(monkeypatch):
    @dataclass
    class Older:
        num_blocks: int

    monkeypatch.setattr("transformers.ContinuousBatchingConfig", Older)
    monkeypatch.setattr("transformers.__version__", "5.16.0")
    with pytest.raises(ModelError, match=r"needs transformers 5\.24 or newer, and this is 5\.16\.0; or use"):
        BatchingEngine(tiny_model(), TOKENIZER)


def test_generate_has_the_model_to_itself_beside_batches(engines):
    batching, alone = engines
    ids = torch.tensor([PROMPTS[0].ids])
    arguments = {"input_ids": ids, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = alone.generate(READ, Fixed(), nothing, arguments)
    with ThreadPoolExecutor(6) as pool:
        replies = [pool.submit(batching.reply, [p], READ, Fixed(), GREEDY, nothing) for p in PROMPTS[:4]]
        found = [pool.submit(batching.generate, READ, Fixed(), nothing, arguments) for _ in range(2)]
        assert all(torch.equal(one.result(30).output, expected.output) for one in found)
        assert all(reply.result(30)[0].new_tokens == 8 for reply in replies)
