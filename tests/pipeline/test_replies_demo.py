"""Replies of the built-in model: calibrated on its own benign ones, and caught when they turn malicious."""

from dataclasses import replace

import pytest

from guardrail import Guard, demo
from guardrail.calibrate import projections as collect
from guardrail.calibrate.benign_replies import reply_statistics
from guardrail.calibrate.projections import Spoken
from guardrail.calibration.values import Calibration
from guardrail.demo import material
from guardrail.demo.prompts import TOUR
from guardrail.extract.subject import Subject
from guardrail.types import Message
from guardrail.vectors.values import TraitVectors

PROMPTS = {stop.name: [Message(m["role"], m["content"]) for m in stop.messages] for stop in TOUR}
SAMPLED = {"temperature": 1.0, "max_new_tokens": 40}
FILE = {"version": 1, "vectors": "demo", "defaults": {"timeout_ms": 60_000}}
BENIGN = 40


def replies(guard, name, count, seed=0):
    """Different replies to one prompt, sampled in batches."""
    return guard.chat_many([PROMPTS[name]] * count, seed=seed, **SAMPLED)


def benign(seed, count):
    """Different harmless prompts: replies to a single one share their first words, and so their scores."""
    drawn = material.benign(seed, count, "train")
    return [[Message(m["role"], m["content"]) for m in one.messages] for one in drawn]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """The demo's calibration with benign replies added."""
    path = tmp_path_factory.mktemp("demo") / "calibration.json"
    watching = {**FILE, "policies": [], "allow_empty": True}
    prompts = benign(1, BENIGN)
    with Guard.from_pretrained("demo", watching) as guard:
        texts = [reply.text for reply in guard.chat_many(prompts, seed=0, **SAMPLED)]
    subject = Subject.load("demo")
    starts = [subject.render(prompt).ids for prompt in prompts]
    encoded = subject.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # the end token is never read
    ended = subject.tokenizer.eos_token_id
    spoken = [Spoken((*a, *b, ended), len(a)) for a, b in zip(starts, encoded, strict=True)]
    vectors = TraitVectors.load(demo.VECTORS)
    followed = collect.followed(vectors, {})
    found = collect.token_projections(subject, spoken, collect.steering(vectors), followed, seed=0)
    table = reply_statistics(found.replies, followed.columns, None)
    replace(Calibration.load(demo.CALIBRATION), replies=table).save(path)
    return str(path)


def rule(**keys):
    return {"id": "replies", "trait": "evil", "stage": "response", "action": "block"} | keys


def guarded(calibrated, *rules):
    return Guard.from_pretrained("demo", {**FILE, "calibration": calibrated, "policies": list(rules)})


# not `max`: single tokens of benign replies score as high as malicious ones
@pytest.mark.parametrize("statistic", ["mean", "ema"])
def test_malicious_replies_are_stopped_and_benign_ones_are_not(calibrated, statistic):
    monitor = {"statistic": statistic, "every": 1}
    with guarded(calibrated, rule(threshold={"fpr": 0.05}, monitor=monitor)) as guard:
        malicious = replies(guard, "malicious", 10)
        fresh = guard.chat_many(benign(2, 10), seed=1, **SAMPLED)
    assert sum(reply.outcome == "blocked" for reply in malicious) >= 9
    assert sum(reply.outcome == "blocked" for reply in fresh) <= 2
    assert all(reply.decision.status == "not_evaluated" for reply in malicious)


def test_a_reply_is_stopped_before_it_is_over(calibrated):
    with guarded(calibrated, rule(threshold={"fpr": 0.05}, monitor={"every": 1})) as guard:
        stream = guard.stream(PROMPTS["malicious"], seed=0, **SAMPLED)
        text = "".join(stream)
    assert stream.reply.outcome == "blocked"
    assert stream.reply.new_tokens == stream.reply.reply_decision.token
    assert text.endswith("I can't help with that.")


def test_two_ways_of_reading_a_turn_agree(calibrated):
    """While it is generated, and from the messages afterwards, if the reply ended by itself."""
    conversation = {"statistic": "cusum", "k": 0.0, "h": 1e6}
    drift = {"id": "drift", "trait": "evil", "conversation": conversation, "action": "block"}
    with guarded(calibrated, drift) as guard:
        for seed in range(2):
            reply = guard.chat(PROMPTS["malicious"], seed=seed, conversation=f"c{seed}", **SAMPLED)
            after = [*reply.history, Message("user", "And then?")]
            kept = guard.check(after, conversation=f"c{seed}").decision.scores[0].score
            read = guard.check(after).decision.scores[0].score
            if reply.new_tokens < 40:
                assert kept == pytest.approx(read, rel=0.02)


def test_a_conversation_that_drifts_sets_off_the_alarm(calibrated):
    drift = {"id": "drift", "trait": "evil", "conversation": {}, "action": "block"}
    with guarded(calibrated, drift) as guard:
        for name, alarm in (("malicious", True), ("harmless", False)):
            for seed in range(4):
                reply = guard.chat(PROMPTS[name], seed=seed, conversation=name, **SAMPLED)
            assert (reply.outcome == "blocked") == alarm, name
