"""Chunks, caches and preemption: prompts are read once and whole, whatever vLLM computes when."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from test_engine import answer, rendered, scores
from world import ALWAYS, NEVER, compiled, guarded, prompts, reading_means, steering

from guardrail.errors import EvaluationError
from guardrail.types import Message, RawPrompt, Sampling

CHUNK = 16
LONG = Sampling(temperature=0, max_new_tokens=200, logit_bias=((2, -100.0),))


@pytest.fixture(scope="module")
def small():
    """Chunks of a few tokens, no prefix cache, and a KV cache that holds few requests."""
    with guarded(
        max_num_batched_tokens=CHUNK, max_num_seqs=CHUNK, enable_prefix_caching=False,
        kv_cache_memory_bytes=6 << 20, max_model_len=512, block_size=32,
    ) as guard:  # fmt: skip
        yield guard


@pytest.mark.parametrize("over", [0, 1, 2, CHUNK - 1])
def test_a_prompt_that_is_computed_in_pieces_is_read_at_its_last_token(small, reference, over):
    ids = rendered(small, [{"role": "user", "content": "Tell me about France. " * 20}]).ids
    # with one token over, the last piece is the last token alone
    prompt = small.engine.raw(RawPrompt("", ids[: 3 * CHUNK + over]))
    plan = compiled(reference, steering("cap", NEVER))
    ours, theirs = answer(small, prompt, plan), answer(reference, prompt, plan)
    assert scores(ours.decision) == pytest.approx(scores(theirs.decision), rel=1e-3, abs=1e-3)
    assert ours.text == theirs.text
    steered = compiled(reference, steering("ablate", ALWAYS))
    assert answer(small, prompt, steered).text == answer(reference, prompt, steered).text


def test_preempted_requests_keep_their_verdict_and_their_steering(small, reference):
    plans = [compiled(reference, steering("cap", NEVER)), compiled(reference, steering("ablate", ALWAYS))]
    asked = [rendered(small, conversation) for conversation in prompts(12, seed=8)]
    alone = [answer(small, prompt, plans[i % 2], LONG) for i, prompt in enumerate(asked)]
    before = preemptions(small)
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda i: answer(small, asked[i], plans[i % 2], LONG), range(12)))
    assert preemptions(small) > before
    assert [one.decision.action for one in found] == [one.decision.action for one in alone]
    assert [one.text for one in found] == [one.text for one in alone]
    assert all(one.steered_passes == (one.new_tokens if i % 2 else 0) for i, one in enumerate(found))


def preemptions(guard):
    """How often a worker computed positions of a reply again."""
    return guard.engine.backend.counts()["repeated"]


# --- means over turns ---------------------------------------------------------------------------------

LONG_TALK = [
    Message("system", "Be brief."),
    Message("user", "Tell me about France. " * 20),
    Message("assistant", "It is a country. " * 5),
    Message("user", "And what is the capital of Spain? " * 10),
]
MEANS = ("user_mean", "prompt_mean")


def read(guard, prompt, plan):
    """The scores of one prompt, in the order of the plan's probes."""
    return [score.score for score in answer(guard, prompt, plan).decision.scores]


def test_means_over_turns_are_those_of_transformers_in_pieces_and_beside_the_prefix_cache(
    guard, small, reference
):
    plan = reading_means(compiled(reference, steering("cap", NEVER)))
    prompt = guard.engine.render(LONG_TALK, (), MEANS)
    expected = read(reference, prompt, plan)
    assert len(expected) == 3
    assert read(small, prompt, plan) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # the second time all of it is in the prefix cache
    for _ in range(2):
        assert read(guard, prompt, plan) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_prompts_read_whole_and_at_their_end_share_passes(small, reference):
    plain = compiled(reference, steering("cap", NEVER))
    plans = [reading_means(plain), plain, reading_means(compiled(reference, steering("ablate", ALWAYS)))]
    talks = [[Message(**turn) for turn in conversation] for conversation in prompts(12, seed=8)]
    asked = [small.engine.render(talk, (), MEANS) for talk in talks]
    alone = [answer(reference, prompt, plans[i % 3], LONG) for i, prompt in enumerate(asked)]
    before = preemptions(small)
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda i: answer(small, asked[i], plans[i % 3], LONG), range(12)))
    assert preemptions(small) > before
    for one, other in zip(found, alone, strict=True):
        assert scores(one.decision) == pytest.approx(scores(other.decision), rel=1e-3, abs=1e-3)
    assert [one.decision.action for one in found] == [one.decision.action for one in alone]


def test_a_prompt_whose_turns_nobody_has_found_is_an_error_of_its_own(guard, reference):
    plan = reading_means(compiled(reference, steering("cap", NEVER)))
    known = guard.engine.render(LONG_TALK, (), MEANS)
    unknown = guard.engine.raw(RawPrompt("", known.ids))
    with ThreadPoolExecutor(2) as threads:
        good, bad = (threads.submit(answer, guard, prompt, plan) for prompt in (known, unknown))
        assert good.result().decision.status == "evaluated"
        with pytest.raises(EvaluationError, match="its tokens are not known in this prompt"):
            bad.result()
