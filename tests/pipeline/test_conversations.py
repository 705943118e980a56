"""Alarms over conversations: what is read from a turn, where the state is kept, and what they set off."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TOKENIZER, guard, policy

from guardrail.errors import EvaluationError
from guardrail.pipeline.conversations import Conversations
from guardrail.pipeline.turns import assistant_spans, turn_projections
from guardrail.testing import tiny_model
from guardrail.types import Message

GREEDY = {"temperature": 0, "max_new_tokens": 8}
TALK = (
    Message("user", "hello world"),
    Message("assistant", "good day"),
    Message("user", "what is this?"),
    Message("assistant", "a test of it"),
    Message("user", "z"),
)


Z = (Message("user", "z"),)
SAID = Message("assistant", "zz")


def drift(conversation, action="block", **keys):
    found = policy(action, None, id="drift", conversation=conversation, message="Enough.", **keys)
    del found["threshold"]
    return found


def raw(mean=0.0, sd=1.0, **keys):
    return {"reference": {"mean": mean, "sd": sd}, **keys}


def means(made, messages):
    """The mean projection of each assistant turn, from one plain forward pass."""
    vector = made.active.vectors["evil"]
    rendered = made.engine.render(messages).ids
    with torch.no_grad():
        states = tiny_model()(torch.tensor([rendered]), output_hidden_states=True).hidden_states[3][0]
    values = states.numpy() @ vector.probe[3] + vector.offset[3]
    found, place = [], 0
    for message in messages:
        text = TOKENIZER(message.content, add_special_tokens=False)["input_ids"]
        start = next(i for i in range(place, len(rendered)) if list(rendered[i : i + len(text)]) == text)
        place = start + len(text)
        if message.role == "assistant":
            found.append(float(values[start:place].mean()))
    return found


def test_turns_are_the_tokens_of_the_assistants_texts(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        ids = made.engine.render(TALK).ids
        spans = assistant_spans(made.engine, TALK)
        turns = turn_projections(made.engine, TALK, made.active.plan.reply_probes)
        expected = means(made, TALK)
    assert [TOKENIZER.decode(ids[a:b]) for a, b in spans] == ["good day", "a test of it"]
    assert [float(turn.mean()) for turn in turns] == pytest.approx(expected, rel=1e-4)


def test_without_assistant_turns_nothing_is_read(tmp_path, monkeypatch):
    with guard(tmp_path, drift(raw())) as made:
        monkeypatch.setattr(
            type(made.engine.activations), "read", lambda *args: pytest.fail("a pass was made")
        )
        check = made.check("hello world")
    assert check.decision.scores[0].score == 0.0
    assert check.decision.action == "allow"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_after_the_last_assistant_turn_is_read(tmp_path, monkeypatch, count):
    turns = [Message("user", "z"), Message("assistant", "good day")] * count
    seen = []
    with guard(tmp_path, drift(raw())) as made:
        read = made.engine.hidden_states
        monkeypatch.setattr(made.engine, "hidden_states", lambda *args: seen.append(args[0]) or read(*args))
        found = turn_projections(made.engine, [*turns, *Z], made.active.plan.reply_probes)
        assert seen == [made.engine.render(turns)]
    assert [turn.shape for turn in found] == [(1, len("good day"))] * count


def test_a_greeting_before_the_first_user_turn_and_an_empty_reply_are_not_turns(tmp_path):
    greeting, empty = Message("assistant", "Hi."), Message("assistant", "")
    with guard(tmp_path, drift(raw())) as made:
        spans = assistant_spans(made.engine, [greeting, *TALK[:3], empty, *Z])
        ids = made.engine.render([greeting, *TALK[:2]]).ids
    assert [TOKENIZER.decode(ids[a:b]) for a, b in spans] == ["good day"]


def test_a_reply_right_after_a_reply_is_a_turn_of_its_own(tmp_path):
    twice = [*TALK[:2], Message("assistant", "and more"), *Z]
    with guard(tmp_path, drift(raw())) as made:
        ids = made.engine.render(twice).ids
        spans = assistant_spans(made.engine, twice)
    assert [TOKENIZER.decode(ids[a:b]) for a, b in spans] == ["good day", "and more"]


def test_without_turns_or_probes_no_engine_is_asked(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        probes = made.active.plan.reply_probes
    assert turn_projections(object(), Z, probes) == []
    assert turn_projections(object(), TALK, ()) == []


def test_the_score_is_the_alarm_over_the_turns_of_the_messages(tmp_path):
    with guard(tmp_path, drift(raw(-10.0, 5.0, k=0.25, h=1e6))) as made:
        found = made.check(TALK).decision.scores[0]
        z = [(mean + 10.0) / 5.0 for mean in means(made, TALK)]
    level = 0.0
    for value in z:
        level = max(0.0, level + value - 0.25)
    assert found.score == pytest.approx(level, rel=1e-4)
    assert (found.threshold, found.layer, found.trait) == (1e6, 3, "evil")


@pytest.mark.parametrize("statistic", ["cusum", "ewma"])
def test_an_alarm_acts_on_the_next_prompt(tmp_path, statistic):
    limit = {"cusum": {"h": 5.0}, "ewma": {"limit": 3.0}}[statistic]
    with guard(tmp_path, drift(raw(-100.0, 1.0, statistic=statistic, **limit))) as made:
        first = made.chat(TALK[:1], **GREEDY)
        second = made.chat(TALK, **GREEDY)
    assert first.outcome == "answered"
    assert (second.outcome, second.text, second.decision.policy) == ("blocked", "Enough.", "drift")
    assert second.decision.stage == "prompt"


def test_steering_after_an_alarm(tmp_path):
    steer = {"steer": {"operator": "add", "coefficient": -3.0, "layers": "all"}}
    with guard(tmp_path, drift(raw(-100.0), steer)) as made:
        assert made.chat(TALK[:1], **GREEDY).steered_passes == 0
        assert made.chat(TALK, **GREEDY).steered_passes == 8


def test_firing_below_turns_the_drift_around(tmp_path):
    for reference, fires in ((100.0, True), (-100.0, False)):
        with guard(tmp_path, drift(raw(reference), fires="below")) as made:
            assert (made.check(TALK).decision.action == "block") == fires


def test_a_named_conversation_is_read_while_it_is_generated(tmp_path, monkeypatch):
    with guard(tmp_path, drift(raw(-50.0, 10.0, k=0.0, h=1e6))) as made:
        reply = made.chat(TALK[:1], conversation="c", **GREEDY)
        made.stream(TALK[:1], conversation="d", **GREEDY).close()
        monkeypatch.setattr(
            type(made.engine.activations), "read", lambda *args: pytest.fail("a pass was made")
        )
        kept = made.check([*reply.history, TALK[2]], conversation="c").decision.scores[0].score
        ids = made.engine.render(TALK[:1]).ids
        vector = made.active.vectors["evil"]
    model = tiny_model()
    with torch.no_grad():
        whole = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False, pad_token_id=0)
        states = model(whole, output_hidden_states=True).hidden_states[3][0, len(ids) : -1]
    mean = float((states.numpy() @ vector.probe[3] + vector.offset[3]).mean())
    assert kept == pytest.approx((mean + 50.0) / 10.0, rel=1e-4)
    assert reply.reply_decision is None, "following for a conversation is not a decision on the reply"


def test_following_a_conversation_changes_no_token(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        assert made.chat("z", conversation="c", **GREEDY).text == made.chat("z", **GREEDY).text
        batched = made.chat_many(["hello world", "z"], conversation="c", **GREEDY)
        assert [r.text for r in batched] == [r.text for r in made.chat_many(["hello world", "z"], **GREEDY)]


def test_a_named_conversation_that_is_not_remembered_starts_from_its_messages(tmp_path):
    with guard(tmp_path, drift(raw(-10.0, h=1e6))) as made:
        without = made.check(TALK).decision.scores[0].score
        assert made.check(TALK, conversation="new").decision.scores[0].score == pytest.approx(without)
        # from now on the messages are not needed
        assert made.check(TALK[4:], conversation="new").decision.scores[0].score == pytest.approx(without)
        assert made.check(TALK[4:]).decision.scores[0].score == 0.0


def test_a_stopped_reply_is_not_a_turn(tmp_path):
    stopped = policy(threshold={"raw": -1e6}, id="stop", stage="response", when={"tags": ["stop"]})
    with guard(tmp_path, drift(raw(-100.0, h=1e6)), stopped) as made:
        made.chat("z", conversation="c", tags=["stop"], **GREEDY)
        assert made.check("z", conversation="c").decision.scores[0].score == 0.0
        made.chat("z", conversation="c", **GREEDY)
        assert made.check("z", conversation="c").decision.scores[0].score > 10


def test_a_stream_that_is_left_in_the_middle_is_a_turn(tmp_path):
    with guard(tmp_path, drift(raw(-1000.0, k=0.0, h=1e9))) as made:
        stream = made.stream("z", conversation="c", temperature=1.0, seed=0, max_new_tokens=200)
        said = "".join(next(stream) for _ in range(5))
        stream.close()
        counted = [made.check("x", conversation="c").decision.scores[0].score for _ in range(2)]
        told = [*Z, Message("assistant", said), Message("user", "x")]
        assert counted == pytest.approx([made.check(told).decision.scores[0].score] * 2, rel=1e-4)


def test_a_reply_that_nobody_reads_to_its_end_is_a_turn_once(tmp_path):
    sampled = {"temperature": 1.0, "seed": 0, "max_new_tokens": 20}
    with guard(tmp_path, drift(raw(-1000.0, k=0.0, h=1e9))) as made:
        stream = made.stream("z", conversation="c", **sampled)
        next(stream)
        counted = [made.check("x", conversation="c").decision.scores[0].score]
        stream.close()
        counted.append(made.check("x", conversation="c").decision.scores[0].score)
        made.chat("z", conversation="d", **sampled)
        whole = made.check("x", conversation="d").decision.scores[0].score
        assert counted == pytest.approx([whole] * 2, rel=1e-4)


def about_names(made):
    return [text for text in made.last_decisions[0].warnings if "give `conversation`" in text]


def test_generate_knows_named_conversations_and_says_that_it_sees_no_others(tmp_path):
    inputs = dict(TOKENIZER(["hello world"], return_tensors="pt"))
    with guard(tmp_path, drift(raw(-100.0))) as made:
        made.generate(**inputs, conversation="c", max_new_tokens=4, do_sample=False)
        made.generate(**inputs, conversation="c", max_new_tokens=4, do_sample=False)
        assert made.last_decisions[0].action == "block"
        assert not about_names(made)
        made.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert about_names(made)


class Leaving:
    """A streamer whose reader leaves after the prompt and three tokens."""

    def __init__(self):
        self.got = []

    def put(self, value):
        self.got += value.flatten().tolist()
        if len(self.got) == self.prompt + 3:
            raise KeyboardInterrupt

    def end(self):
        pytest.fail("nobody waits for the end")


def test_what_a_streamer_got_of_a_reply_that_was_left_is_a_turn(tmp_path):
    inputs = dict(TOKENIZER(["hello world"], return_tensors="pt"))
    streamer = Leaving()
    streamer.prompt = inputs["input_ids"].shape[1]
    with guard(tmp_path, drift(raw(-1000.0, k=0.0, h=1e9))) as made:
        made.check("x", conversation="c")
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            made.generate(**inputs, streamer=streamer, conversation="c", max_new_tokens=50, pad_token_id=0)
        counted = [made.check("x", conversation="c").decision.scores[0].score for _ in range(2)]
        vector = made.active.vectors["evil"]
    with torch.no_grad():
        states = tiny_model()(torch.tensor([streamer.got]), output_hidden_states=True).hidden_states[3][0]
    # the third token was being handed out when its reader left
    said = states[streamer.prompt : streamer.prompt + 2].numpy()
    mean = float((said @ vector.probe[3] + vector.offset[3]).mean())
    assert counted == pytest.approx([mean + 1000.0] * 2, rel=1e-4)


def test_generate_asks_for_a_name_only_if_policies_are_about_conversations(tmp_path):
    with guard(tmp_path, policy()) as made:
        made.generate(**dict(TOKENIZER(["z"], return_tensors="pt")), max_new_tokens=4, pad_token_id=0)
        assert not about_names(made)


def test_replies_that_cannot_be_read_follow_on_error(tmp_path, monkeypatch):
    def broken(*args):
        raise OSError("secret")

    for on_error, action in (("block", "block"), ("allow", "allow")):
        with guard(tmp_path, drift(raw(), on_error=on_error)) as made:
            monkeypatch.setattr(type(made.engine.activations), "read", broken)
            decision = made.check(TALK).decision
            assert (decision.status, decision.action) == ("error", action)
            assert decision.error == "the replies of the conversation could not be read: OSError"
            assert made.check("z").decision.status == "evaluated"


def test_a_template_that_rewrites_history_is_an_error_not_a_pass(tmp_path):
    forgetful = (
        "{% for m in messages %}<|{{ m['role'] }}|>"
        "{{ m['content'] if loop.last else 'Once: ' ~ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    model = tiny_model()
    with guard(tmp_path, drift(raw()), model=model) as made:
        made.engine.local.renderer.template = forgetful
        with pytest.raises(EvaluationError, match="changes earlier turns"):
            assistant_spans(made.engine, TALK)
        decision = made.check(TALK).decision
    assert decision.status == "error"
    assert "changes earlier turns" in decision.error


def test_memory_is_bounded_and_forgets_what_was_quiet_longest(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        plan, memory = made.active.plan, Conversations(made.engine, capacity=2)
        for name in ("a", "b"):
            memory.add(plan, (None, name), [5.0])
        memory.values(plan, (None, "a"), Z)
        memory.add(plan, (None, "c"), [5.0])
        values = {n: memory.values(plan, (None, n), Z)["drift"] for n in "ac"}
        assert values == {"a": 4.5, "c": 4.5}
        assert len(memory) == 2
        assert memory.values(plan, (None, "b"), Z)["drift"] == 0.0
        other = replace(plan)
        assert memory.values(other, (None, "b"), Z)["drift"] == 0.0


def test_only_turns_of_named_conversations_are_remembered(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        plan, memory = made.active.plan, Conversations(made.engine)
        memory.add(plan, None, [5.0])
        memory.add(plan, (None, "c"), None)
        assert len(memory) == 0


def test_unnamed_conversations_share_nothing(tmp_path):
    with guard(tmp_path, drift(raw(-100.0))) as made:
        made.chat("z", **GREEDY)
        assert made.chat("z", **GREEDY).outcome == "answered"
        assert len(made._driver.conversations) == 0


def test_many_threads_lose_no_turn(tmp_path):
    with guard(tmp_path, drift(raw(k=0.0))) as made:
        plan, memory = made.active.plan, Conversations(made.engine)
        threads = [
            threading.Thread(target=lambda: [memory.add(plan, (None, "c"), [1.0]) for _ in range(200)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert memory.values(plan, (None, "c"), Z)["drift"] == pytest.approx(1600.0)


def test_clients_share_no_conversation(tmp_path):
    with guard(tmp_path, drift(raw(-100.0))) as made:
        made.chat("z", conversation="c", client="ann", **GREEDY)
        assert made.check("z", conversation="c", client="bob").decision.action == "allow"
        assert made.check("z", conversation="c", client="ann").decision.action == "block"


@pytest.mark.parametrize("known", [False, True])
def test_what_happens_while_turns_are_read_counts(tmp_path, monkeypatch, known):
    talk = (None, "c")
    with guard(tmp_path, drift(raw(k=0.0))) as made:
        plan, memory = made.active.plan, Conversations(made.engine)
        if known:
            memory.values(plan, talk, Z)
            memory.owe(plan, talk, (*Z, SAID))
        meanwhile = [lambda: memory.add(plan, talk, [5.0]), lambda: memory.owe(plan, talk, (*Z, SAID))]

        def turns(plan, messages):
            for happens in meanwhile:
                happens()
            meanwhile.clear()
            return [[1.0]] if messages[-1] is SAID else []

        monkeypatch.setattr(memory, "_turns", turns)
        assert memory.values(plan, talk, Z)["drift"] == 5.0 + known
        assert memory.values(plan, talk, Z)["drift"] == 6.0 + known


def test_two_requests_that_read_the_same_turn_count_it_once(tmp_path, monkeypatch):
    talk = (None, "c")
    with guard(tmp_path, drift(raw(k=0.0))) as made:
        plan, memory = made.active.plan, Conversations(made.engine)
        memory.values(plan, talk, Z)
        memory.owe(plan, talk, (*Z, SAID))
        inner = [lambda: memory.values(plan, talk, Z)]

        def turns(plan, messages):
            while inner:
                inner.pop()()
            return [[1.0]]

        monkeypatch.setattr(memory, "_turns", turns)
        assert memory.values(plan, talk, Z)["drift"] == 1.0
        assert memory.values(plan, talk, Z)["drift"] == 1.0


def test_a_turn_that_is_not_a_number_is_an_error_of_the_next_prompt(tmp_path):
    with guard(tmp_path, drift(raw())) as made:
        memory = made._driver.conversations
        memory.add(made.active.plan, (None, "c"), [np.nan])
        decision = made.check("z", conversation="c").decision
    assert (decision.status, decision.action) == ("error", "block")
