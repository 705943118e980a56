"""A model as extraction sees it: seeded replies, steering as the guard's, states by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TOKENIZER, steering

from guardrail import Guard
from guardrail.engines.transformers.sampling import SeededRows
from guardrail.engines.transformers.steering import steered
from guardrail.errors import PromptError, SteeringError
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model
from guardrail.types import POSITIONS, Message

QUESTIONS = ("hello", "what is this?", "tell me a much longer story about rain", "z", "one more")
PROMPTS = [[Message("system", "be brief"), Message("user", text)] for text in QUESTIONS]


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), TOKENIZER)


def replies(subject, prompts=PROMPTS, seeds=range(5), **options):
    return subject.replies(prompts, seeds=seeds, **{"max_new_tokens": 12, **options})


def test_a_reply_does_not_depend_on_its_batch(subject):
    together = replies(subject)
    alone = [replies(subject, [prompt], [seed])[0] for seed, prompt in enumerate(PROMPTS)]
    backwards = replies(subject, PROMPTS[::-1], range(4, -1, -1))[::-1]
    small = replies(Subject(tiny_model(), TOKENIZER, rows=2))
    assert together == alone == backwards == small


def test_seeds_make_replies_differ_and_the_global_random_state_is_left_alone(subject):
    before = torch.random.get_rng_state()
    first, second = replies(subject, PROMPTS[:1] * 2, [1, 2])
    assert first.ids != second.ids
    assert torch.equal(before, torch.random.get_rng_state())


def test_sampled_tokens_follow_the_models_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).repeat(4000, 1)
    sampler = SeededRows(range(4000), prompt=3, new_tokens=1, temperature=0.5, top_p=1.0)
    tokens = sampler(torch.zeros(4000, 3, dtype=torch.long), logits).argmax(-1)
    shares = torch.bincount(tokens, minlength=4) / 4000
    assert torch.allclose(shares, torch.softmax(logits[0] / 0.5, 0), atol=0.02)


def test_top_p_keeps_the_smallest_set_that_holds_so_much():
    logits = torch.tensor([[0.1, 0.5, 0.2, 0.2]]).log().repeat(500, 1)
    sampler = SeededRows(range(500), prompt=1, new_tokens=1, temperature=1.0, top_p=0.6)
    tokens = sampler(torch.zeros(500, 1, dtype=torch.long), logits).argmax(-1)
    assert set(tokens.tolist()) == {1, 2}


def test_temperature_0_is_the_models_own_greedy_reply(subject):
    ids = torch.tensor([subject.render(PROMPTS[0]).ids])
    expected = tiny_model().generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :]
    assert replies(subject, PROMPTS[:1], [0], temperature=0)[0].ids == tuple(expected.tolist())


def test_a_reply_ends_with_its_first_end_token(subject):
    found = replies(subject, PROMPTS * 12, range(60), max_new_tokens=40, temperature=2.0)
    assert {reply.ended for reply in found} == {True, False}
    for reply in found:
        assert reply.ended == (reply.ids[-1] == TOKENIZER.eos_token_id)
        assert TOKENIZER.eos_token_id not in reply.ids[:-1]
        assert len(reply.ids) <= 40
        assert reply.ended or len(reply.ids) == 40


@pytest.mark.parametrize("operator", ["add", "ablate", "cap"])
def test_steering_is_the_guards(operator, tmp_path):
    from tiny import guard, policy

    action = {
        "add": {"operator": "add", "coefficient": -2.0, "layers": [2, 3]},
        "ablate": {"operator": "ablate", "layers": [2, 3]},
        "cap": {"operator": "cap", "at": -0.5, "layers": [2, 3]},
    }[operator]
    with guard(tmp_path, policy({"steer": action}, trait="evil", layer=3)) as made:
        assert isinstance(made, Guard)
        reply = made.chat(list(PROMPTS[1]), max_new_tokens=12, temperature=0)
        applied = reply.decision.steering
    subject = Subject(tiny_model(), TOKENIZER)
    found = replies(subject, temperature=0, steering=applied)
    assert found[1].text == reply.text
    assert found[1] != replies(subject, temperature=0)[1]


def test_steering_leaves_nothing_behind_and_two_of_them_add_up(subject):
    plain = replies(subject)
    one = steering("add", [2])
    double = replace(one, directions=(one.directions[0] * 2,))
    assert replies(subject, steering=[one, one]) == replies(subject, steering=[double]) != plain
    assert replies(subject) == plain


def test_steering_that_did_not_happen_is_an_error(subject):
    with pytest.raises(SteeringError), steered(subject.blocks, [steering("add", [2])]):
        pass


def test_a_prompt_that_leaves_no_room_is_refused(subject):
    with pytest.raises(PromptError, match="exceed the model's 512"):
        replies(subject, max_new_tokens=500)


def test_prompt_states_are_the_last_tokens_at_every_layer(subject):
    states = subject.prompt_states(PROMPTS)
    assert states.shape == (5, 5, 32)
    for row, prompt in zip(states, PROMPTS, strict=True):
        ids = torch.tensor([subject.render(prompt).ids])
        hidden = tiny_model()(ids, output_hidden_states=True).hidden_states
        for layer in range(4):
            assert np.allclose(row[layer], hidden[layer][0, -1].detach(), atol=1e-5)
        assert not np.allclose(row[4], hidden[4][0, -1].detach(), atol=1e-3)


@pytest.mark.parametrize(
    ("tokens", "rows", "read"), [(4, 64, 64), (4, 300, 256), (200, 64, 5), (2000, 64, 1)]
)
def test_a_cpu_reads_no_more_than_a_thousand_tokens_at_a_time(tokens, rows, read):
    made, seen = Subject(tiny_model(max_position_embeddings=2048), TOKENIZER, rows=rows), []
    made.blocks[0].register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(len(arguments[0])), with_kwargs=True
    )
    made.means([[1] * tokens] * (read + 1), [[(0, tokens)]] * (read + 1))
    assert seen == [read, 1]


def test_a_long_row_makes_no_other_batch_smaller():
    made, seen = Subject(tiny_model(max_position_embeddings=2048), TOKENIZER), []
    made.blocks[0].register_forward_pre_hook(
        lambda module, arguments, keywords: seen.append(tuple(arguments[0].shape[:2])), with_kwargs=True
    )
    rows = [[1] * tokens for tokens in (1000, 10, 11, 600, 12)]
    made.means(rows, [[(0, 1)]] * len(rows))
    assert seen == [(3, 12), (1, 600), (1, 1000)]


def test_means_are_over_each_rows_own_spans(subject):
    rows = [subject.render(prompt).ids for prompt in PROMPTS]
    found = subject.means(rows, [[(0, 3), (2, len(ids)), (4, 4)] for ids in rows])
    for row, ids in zip(found, rows, strict=True):
        hidden = tiny_model()(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0].detach()
        assert np.allclose(row[0, 2], hidden[:3].mean(0), atol=1e-5)
        assert np.allclose(row[1, 2], hidden[2:].mean(0), atol=1e-5)
        assert not row[2].any()


KNOWS_TOOLS = "{% for m in messages %}<|user|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}<|assistant|>"


def test_states_are_the_means_that_each_position_names():
    subject = Subject(tiny_model(), TOKENIZER, chat_template=KNOWS_TOOLS)
    talk = [*PROMPTS[2], Message("assistant", "no"), Message("tool", "wet"), Message("tool", "cold")]
    prompts = [subject.render(messages, POSITIONS) for messages in (talk, PROMPTS[0])]
    found = subject.states(prompts, POSITIONS)
    for row, prompt, text, results in zip(
        found, prompts, (QUESTIONS[2], "hello"), (["wet", "cold"], []), strict=True
    ):
        whole = TOKENIZER.decode(prompt.ids)
        # one token per byte, apart from the four marks
        tokens = [(TOKENIZER.decode([token]), i) for i, token in enumerate(prompt.ids)]
        assert "".join(token for token, _ in tokens) == whole
        starts = [sum(len(token) for token, _ in tokens[:i]) for i in range(len(tokens))]
        (hidden,) = subject.model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states[3]
        texts = {"user_mean": [text], "tool_mean": results}
        for j, position in enumerate(POSITIONS):
            spans = [(whole.index(t), whole.index(t) + len(t)) for t in texts.get(position, [])]
            inside = {
                "last": [len(tokens) - 1],
                "prompt_mean": range(len(tokens)),
            }.get(position, [i for i, s in enumerate(starts) if any(a <= s < b for a, b in spans)])
            if not inside:
                assert np.isnan(row[j]).all()
                continue
            assert np.allclose(row[j, 3], hidden[list(inside)].mean(0).detach(), atol=1e-5)
