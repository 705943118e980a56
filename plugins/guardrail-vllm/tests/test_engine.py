"""vLLM decides, steers and answers as transformers does, for many at once, each under its own plan."""

import asyncio
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from guardrail_vllm.worker.asked import Asked
from vllm.exceptions import VLLMValidationError
from world import ALWAYS, GREEDY, NEVER, compiled, policies, prompts, steering, with_threshold

from guardrail import Guard
from guardrail.bench.plans import PlanEvaluator
from guardrail.errors import ModelError, PolicyError, UnsupportedGeneration
from guardrail.types import Message, RawPrompt, Sampling

GREEDY_SAMPLING = Sampling(temperature=0, max_new_tokens=16)


def ignore(event):
    """Nobody listens."""


def answer(guard, prompt, plan, sampling=GREEDY_SAMPLING):
    """A reply under a plan of its own."""
    (found,) = guard.engine.reply([prompt], plan, PlanEvaluator(plan), sampling, ignore)
    return found


def rendered(guard, conversation):
    return guard.engine.render([Message(**turn) for turn in conversation])


def scores(decision):
    return {(score.policy, score.layer): score.score for score in decision.scores}


def test_the_model_is_the_same_for_vectors_and_calibrations(guard, reference):
    assert guard.engine.fingerprint == reference.engine.fingerprint
    assert guard.engine.configuration.dtype == "float32"
    assert guard.engine.configuration.engine == "vllm"


def test_scores_decisions_and_replies_are_those_of_transformers(guard, reference):
    asked = prompts(96)
    ours = guard.chat_many(asked, **GREEDY)
    theirs = reference.chat_many(asked, **GREEDY)
    assert {reply.outcome for reply in ours} == {"answered", "blocked", "rephrased"}
    assert any(reply.decision.action == "steer" for reply in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert scores(one.decision) == pytest.approx(scores(other.decision), rel=1e-3, abs=1e-3)
        assert (one.decision.action, one.outcome) == (other.decision.action, other.outcome)
        assert one.decision.fired == other.decision.fired
    assert sum(one.text == other.text for one, other in zip(ours, theirs, strict=True)) >= 94
    assert guard.engine.backend.counts()["requests"] == 0


def test_checks_generate_nothing(guard, reference):
    asked = prompts(20, seed=1)
    found = [check.decision.action for check in guard.check_many(asked)]
    assert found == [check.decision.action for check in reference.check_many(asked)]


@pytest.mark.parametrize(("operator", "more"), [("cap", {}), ("ablate", {}), ("add", {"coefficient": -1.0})])
def test_steered_replies_are_those_of_transformers(guard, reference, operator, more):
    plan = compiled(reference, steering(operator, **more))
    asked = prompts(8, seed=2)
    same = 0
    for conversation in asked:
        prompt = rendered(guard, conversation)
        ours, theirs = answer(guard, prompt, plan), answer(reference, prompt, plan)
        assert ours.decision.action == "steer"
        assert ours.steered_passes == theirs.steered_passes == ours.new_tokens
        same += ours.text == theirs.text
    assert same >= 7


def test_steering_at_higher_layers_with_a_second_look_is_that_of_transformers(guard, reference):
    weak = {"operator": "add", "coefficient": -0.01, "layers": [6, 7], "recheck": True, "otherwise": "block"}
    plan = compiled(
        reference, {"id": "again", "trait": "sycophancy", "threshold": ALWAYS, "action": {"steer": weak}}
    )
    prompt = rendered(guard, prompts(1, seed=3)[0])
    ours, theirs = answer(guard, prompt, plan), answer(reference, prompt, plan)
    assert ours.decision.action == theirs.decision.action == "block"
    assert ours.decision.warnings == theirs.decision.warnings
    assert ours.text == ""


def test_requests_under_different_plans_at_the_same_time_do_not_touch_one_another(guard, reference):
    plain = compiled(reference, steering("cap", NEVER))
    plans = [
        plain,
        compiled(reference, steering("ablate")),
        compiled(reference, steering("add", coefficient=-2.0)),
    ]
    plans.append(
        replace(
            with_threshold(plain, ALWAYS),
            rules=(replace(with_threshold(plain, ALWAYS).rules[0], action="block", steering=None),),
        )
    )
    asked = [rendered(guard, conversation) for conversation in prompts(12, seed=4)]
    alone = {
        (i, k): answer(guard, prompt, plan).text
        for i, prompt in enumerate(asked)
        for k, plan in enumerate(plans)
    }
    work = [(i, k) for i in range(len(asked)) for k in range(len(plans))] * 21
    random.Random(0).shuffle(work)
    with ThreadPoolExecutor(48) as threads:
        found = list(threads.map(lambda pair: answer(guard, asked[pair[0]], plans[pair[1]]), work))
    assert [one.text for one in found] == [alone[pair] for pair in work]
    assert all((one.steered_passes > 0) == (pair[1] in (1, 2)) for one, pair in zip(found, work, strict=True))
    assert all(one.decision.action == "block" for one, pair in zip(found, work, strict=True) if pair[1] == 3)


def reply_tokens(guard, ids, plan, count):
    """The tokens of a reply of fixed length, as vLLM gives them."""
    from vllm import SamplingParams

    backend = guard.engine.backend
    told = Asked(key="", plan=plan).arguments(backend.know(plan))
    parameters = SamplingParams(max_tokens=count, temperature=0, ignore_eos=True, extra_args=told)

    async def ask():
        return (
            [output async for output in backend.generate(ids, parameters, "tokens")][-1].outputs[0].token_ids
        )

    return tuple(backend.wait(ask()))


def test_a_steered_reply_is_not_found_in_the_prefix_cache(guard, reference):
    steered = compiled(reference, steering("add", coefficient=-2.0))
    plain = compiled(reference, steering("cap", NEVER))
    prompt = rendered(guard, prompts(1, seed=9)[0])
    # more than a block of the cache; the last token is never in it
    ids = (*prompt.ids, *reply_tokens(guard, prompt.ids, steered, 260))
    again = guard.engine.raw(RawPrompt("", ids))
    ours, theirs = answer(guard, again, plain), answer(reference, again, plain)
    assert scores(ours.decision) == pytest.approx(scores(theirs.decision), rel=1e-3, abs=1e-3)


# --- replies ------------------------------------------------------------------------------------------


def test_a_stream_hands_out_what_a_chat_returns(guard):
    (conversation,) = [[{"role": "user", "content": "What is the capital of France?"}]]
    stream = guard.stream(conversation, **GREEDY)
    pieces = list(stream)
    assert len(pieces) > 3
    assert "".join(pieces) == guard.chat(conversation, **GREEDY).text == stream.reply.text


def test_sampling_options_are_honoured(guard, reference):
    question = "What is the capital of France?"
    several = guard.chat(question, temperature=1.0, seed=3, n=4, max_new_tokens=8)
    assert len(several.choices) == 4
    assert [c.text for c in guard.chat(question, temperature=1.0, seed=3, n=4, max_new_tokens=8).choices] == [
        c.text for c in several.choices
    ]
    assert [c.text for c in guard.chat(question, n=2, **GREEDY).choices] == [
        guard.chat(question, **GREEDY).text
    ] * 2
    for options in ({"stop": "Paris"}, {"logit_bias": {"5": 100}}, {"frequency_penalty": 2.0}):
        ours = guard.chat(question, **GREEDY, **options)
        theirs = reference.chat(question, **GREEDY, **options)
        assert (ours.text, ours.finish, ours.new_tokens) == (theirs.text, theirs.finish, theirs.new_tokens)
    (ours,), (theirs,) = (
        one.chat(question, **GREEDY, logprobs=True, top_logprobs=2).choices for one in (guard, reference)
    )
    assert [one.token for one in ours.logprobs] == [one.token for one in theirs.logprobs]
    for one, other in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.top[0].token == other.top[0].token


def watching(threshold, action, **monitor):
    return {
        "id": "watch", "trait": "evil", "stage": "response", "threshold": threshold, "action": action,
        "monitor": {"every": 4, **monitor},
    }  # fmt: skip


@pytest.mark.parametrize("threshold", [ALWAYS, NEVER, 1.0])
def test_replies_are_followed_as_by_transformers(guard, reference, threshold):
    plan = compiled(reference, watching(threshold, "block"))
    for conversation in prompts(4, seed=5):
        prompt = rendered(guard, conversation)
        ours, theirs = answer(guard, prompt, plan), answer(reference, prompt, plan)
        assert (ours.reply_decision.action, ours.reply_decision.token) == (
            theirs.reply_decision.action,
            theirs.reply_decision.token,
        )
        assert scores(ours.reply_decision) == pytest.approx(scores(theirs.reply_decision), rel=1e-3, abs=1e-3)
        assert (ours.text, ours.new_tokens) == (theirs.text, theirs.new_tokens)


def test_a_reply_that_a_policy_steers_is_steered_from_the_token_at_which_it_fires(guard, reference):
    steer = {"steer": {"operator": "add", "coefficient": -1.5, "layers": [6]}}
    plan = compiled(reference, watching(0.0, steer, window=1, every=1))
    changed = 0
    for conversation in prompts(6, seed=6):
        prompt = rendered(guard, conversation)
        ours, theirs = answer(guard, prompt, plan), answer(reference, prompt, plan)
        assert (ours.text, ours.steered_passes) == (theirs.text, theirs.steered_passes)
        changed += ours.steered_passes > 0
    assert changed


# --- who decides --------------------------------------------------------------------------------------


def reviewed(guard, plan, decide, prompt):
    """A reply whose evaluator changes the verdict of the plan, as reviews and time limits do."""

    class Other(PlanEvaluator):
        def decide(self, row, readings):
            return decide(super().decide(row, readings))

    (found,) = guard.engine.reply([prompt], plan, Other(plan), GREEDY_SAMPLING, ignore)
    return found


def test_a_stricter_or_looser_decision_of_the_guard_counts(guard, reference):
    plain, capped = compiled(reference, steering("cap", NEVER)), compiled(reference, steering("ablate"))
    prompt = rendered(guard, prompts(1, seed=7)[0])
    stricter = reviewed(guard, plain, lambda decision: replace(decision, action="block"), prompt)
    assert (stricter.text, stricter.decision.action) == ("", "block")
    looser = reviewed(guard, capped, lambda decision: replace(decision, action="allow", steering=()), prompt)
    assert looser.text == answer(guard, prompt, plain).text
    assert looser.steered_passes == 0
    unsteered = answer(guard, prompt, plain).decision
    found = capped.rules[0].steering
    steered = reviewed(
        guard,
        replace(capped, rules=(replace(capped.rules[0], action="steer"),)),
        lambda d: replace(d, steering=(found,)),
        prompt,
    )
    assert steered.text == answer(guard, prompt, capped).text
    assert unsteered.action == "allow"


def unguarded(guard, extra):
    """A request of vLLM that did not come through the guard."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=8, temperature=0, extra_args=extra)

    async def ask():
        outputs = guard.engine.backend.llm.generate({"prompt_token_ids": [5, 6, 7]}, parameters, "x")
        return [output async for output in outputs][-1].outputs[0]

    return guard.engine.backend.wait(ask())


def test_a_request_that_did_not_come_through_the_guard_gets_no_token(guard):
    with pytest.raises(VLLMValidationError, match="did not come through the guard"):
        unguarded(guard, None)
    found = unguarded(guard, {"guardrail": {"plan": "made up"}})
    assert (found.text, found.finish_reason) == ("", "stop")
    assert len(found.token_ids) == 1


# --- refused ------------------------------------------------------------------------------------------


def test_policies_that_vllm_cannot_carry_out_are_refused(guard):
    below = {"id": "b", "trait": "evil", "threshold": 9.0, "action": "block", "layer": 8}
    kept = guard.active.sha256
    with pytest.raises(ModelError, match="steers layer 6, below layer 8, the last one read"):
        guard.engine.accept(compiled(guard, below, steering("cap")))
    assert guard.active.sha256 == kept


def test_response_policies_and_several_replies_are_refused_together(guard, reference):
    plan = compiled(reference, watching(NEVER, "block"))
    with pytest.raises(UnsupportedGeneration, match="several replies"):
        answer(guard, rendered(guard, prompts(1)[0]), plan, Sampling(n=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "auto"}, "does not take `device_map`; .*tensor_parallel_size"),
        ({"worker_extension_cls": "other.Extension"}, "the guard sets vLLM's `worker_extension_cls`"),
        ({"attention": "eager"}, "vLLM has no argument `attention`"),
        ({"pipeline_parallel_size": 2}, "pipeline parallelism cannot be guarded"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}},
            "speculative decoding cannot be guarded",
        ),
        ({"runner": "pooling"}, "pooling model generates no reply"),
    ],
)
def test_what_cannot_be_guarded_is_refused_before_the_model_is_loaded(options, message):
    with pytest.raises(ModelError, match=message):
        Guard.from_pretrained("demo", policies(steering()), engine="vllm", **options)


def test_a_model_that_is_loaded_already_is_refused(reference):
    with pytest.raises(ModelError, match="vLLM loads its models itself, and this is a LlamaForCausalLM"):
        Guard(reference.model, reference.tokenizer, policies(steering()), engine="vllm")


def test_vectors_of_another_model_are_refused(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from guardrail import demo

    model = AutoModelForCausalLM.from_pretrained(demo.MODEL)
    model.model.embed_tokens.weight.data *= 1.5
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(demo.MODEL).save_pretrained(tmp_path)
    with pytest.raises(PolicyError, match="weights"):
        Guard.from_pretrained(str(tmp_path), policies(steering()), engine="vllm")


# --- last: it kills vLLM ------------------------------------------------------------------------------


def test_a_killed_worker_fails_its_requests_by_on_error_and_the_next_one_starts_vllm_again(guard):
    question = "What is the capital of France?"
    expected = guard.chat(question, **GREEDY).text
    with ThreadPoolExecutor(1) as thread:
        under_way = thread.submit(
            guard.chat, question, temperature=0, max_new_tokens=440, logit_bias={"2": -100}
        )
        time.sleep(0.3)
        processes = guard.engine.backend.llm.engine_core.resources.engine_manager.processes
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        error = under_way.exception(timeout=60)
    assert error is None or "died" in str(error)
    if error is None:
        assert under_way.result().outcome == "blocked"
    while not guard.engine.backend.dead:
        time.sleep(0.05)
    assert guard.chat(question, **GREEDY).text == expected
    assert asyncio.run(guard.achat(question, **GREEDY)).text == expected
