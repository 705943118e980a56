"""The guard inside `vllm serve`: its own API, with decisions in front of it."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import torch

from guardrail import Guard
from guardrail.actions.review_queue import ReviewQueue
from guardrail.audit import read, verify
from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}
TEXTS = {"block": "I can't help with that.", "escalate": "A person will look at this."}
each_stop = pytest.mark.parametrize("stop", TOUR, ids=lambda stop: stop.name)
each_refusal = pytest.mark.parametrize("action", TEXTS)


@pytest.fixture(scope="module")
def guard(server):
    """The transformers engine in float32, with the same policies."""
    policies = server.policies.read_text().replace("audit: {jsonl: audit.jsonl}\n", "")
    path = server.folder / "same.yaml"
    path.write_text(policies)
    with Guard.from_pretrained("demo", path, dtype=torch.float32) as guard:
        yield guard


def record(server, headers):
    (found,) = [
        one for one in read(server.folder / "audit.jsonl") if one.id == headers["x-guardrail-audit-id"]
    ]
    return found


@each_stop
def test_every_action_does_what_it_does_elsewhere(server, guard, stop):
    headers, reply = server.ask(stop.messages)
    same = guard.chat(list(stop.messages), temperature=0, max_tokens=16)
    assert headers["x-guardrail-action"] == stop.expected
    assert reply.choices[0].message.content == same.text
    assert (reply.choices[0].finish_reason == "content_filter") == same.refused


@each_stop
def test_scores_and_the_record_are_those_of_the_transformers_engine(server, guard, stop):
    headers, _ = server.ask(stop.messages)
    found, same = record(server, headers), guard.chat(list(stop.messages), temperature=0, max_tokens=16)
    ours, theirs = found.decision, same.decision
    assert [s.score for s in ours.scores] == pytest.approx(
        [s.score for s in theirs.scores], rel=1e-3, abs=1e-3
    )
    assert (ours.action, ours.fired, ours.vectors_sha256) == (
        theirs.action,
        theirs.fired,
        theirs.vectors_sha256,
    )
    assert (found.outcome, found.steered_passes) == (same.outcome, same.steered_passes)
    assert (found.prompt_tokens, found.new_tokens, found.text) == (same.prompt_tokens, same.new_tokens, None)


@each_stop
def test_a_stream_says_the_same_as_a_whole_reply(server, stop):
    headers, chunks = server.stream(stop.messages)
    _, reply = server.ask(stop.messages)
    assert headers["x-guardrail-action"] == stop.expected
    assert "".join(chunk.delta.content or "" for chunk in chunks) == reply.choices[0].message.content
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [
        reply.choices[0].finish_reason
    ]


@each_refusal
def test_nothing_of_a_refused_reply_is_visible(server, action):
    asked = {
        "n": 2,
        "temperature": 1.0,
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
    }
    extra = {"return_token_ids": True, "skip_special_tokens": False, "ignore_eos": True, "min_tokens": 8}
    _, chunks = server.stream(STOPS[action], **asked, extra_body=extra)
    assert {chunk.delta.content for chunk in chunks} == {"", TEXTS[action]}
    assert {chunk.index for chunk in chunks if chunk.finish_reason == "content_filter"} == {0, 1}
    assert not any(getattr(chunk, "token_ids", None) for chunk in chunks)
    assert not any(chunk.logprobs and chunk.logprobs.content for chunk in chunks)
    _, reply = server.ask(STOPS[action], extra_body={"min_tokens": 8})
    assert (reply.usage.completion_tokens, reply.choices[0].message.content) == (0, TEXTS[action])


def test_several_replies_share_one_decision(server):
    headers, reply = server.ask(STOPS["allow"], n=3, temperature=1.0, seed=1)
    found = record(server, headers)
    assert len({choice.message.content for choice in reply.choices}) > 1
    assert (found.attempts, found.new_tokens) == (1, reply.usage.completion_tokens)


WATCHED = {"extra_headers": {"x-guardrail-tags": "watched"}}


def test_a_reply_that_a_policy_stops_ends_as_it_does_elsewhere(server, guard):
    same = guard.chat(list(STOPS["allow"]), temperature=0, max_tokens=16, tags=["watched"])
    headers, reply = server.ask(STOPS["allow"], **WATCHED)
    found = record(server, headers)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (same.text, "content_filter")
    assert (headers["x-guardrail-action"], headers["x-guardrail-policy"]) == ("block", "enough")
    assert (found.outcome, found.reply_decision.token) == (same.outcome, same.reply_decision.token)


def test_a_stream_that_a_policy_stops_says_so_at_its_end(server, guard):
    same = "".join(guard.stream(list(STOPS["allow"]), temperature=0, max_tokens=16, tags=["watched"]))
    _, chunks = server.stream(STOPS["allow"], **WATCHED)
    assert "".join(chunk.delta.content or "" for chunk in chunks) == same
    assert same.endswith("That is enough.")
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["content_filter"]


ENDLESS = {"ignore_eos": True, "min_tokens": 100, "return_token_ids": True, "skip_special_tokens": False}


def said(chunks):
    """The text of a stream."""
    return "".join(chunk.delta.content or "" for chunk in chunks)


def generated(server):
    """How many tokens vLLM has generated so far."""
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


@pytest.mark.parametrize("more", [{}, {"stop_token_ids": [40], "include_stop_str_in_output": True}])
def test_a_stopped_reply_ends_at_once_whatever_end_was_asked_for(server, more):
    _, usual = server.ask(STOPS["allow"], **WATCHED)
    _, pieces = server.stream(STOPS["allow"], **WATCHED)
    asked = {"max_tokens": 200, "extra_body": {**ENDLESS, **more}, **WATCHED}
    before = generated(server)
    headers, reply = server.ask(STOPS["allow"], **asked)
    _, chunks = server.stream(STOPS["allow"], **asked)
    # four tokens and the end of each, though the counter lags
    assert generated(server) - before <= 12
    kept = record(server, headers).new_tokens
    tokens = [token for chunk in chunks for token in getattr(chunk, "token_ids", None) or ()]
    assert reply.choices[0].message.content == usual.choices[0].message.content
    assert said(chunks) == said(pieces)
    assert len(tokens) == kept == 4


def test_a_stopped_prompt_ends_at_once_whatever_end_was_asked_for(server):
    before = generated(server)
    server.ask(STOPS["block"], max_tokens=400, extra_body=ENDLESS)
    time.sleep(1)
    assert generated(server) - before <= 1


def test_replies_that_nobody_stops_go_on_beyond_their_end_as_long_as_asked_for(server):
    _, reply = server.ask(STOPS["allow"], max_tokens=60, extra_body={"ignore_eos": True})
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (60, "length")


def test_nothing_of_a_reply_that_was_replaced_is_in_its_log_probabilities(server):
    extra = {"return_token_ids": True}
    _, reply = server.ask(STOPS["allow"], logprobs=True, top_logprobs=2, extra_body=extra, **WATCHED)
    (choice,) = reply.choices
    assert choice.finish_reason == "content_filter"
    assert not choice.token_ids
    assert not (choice.logprobs and choice.logprobs.content)


def test_response_policies_and_several_replies_are_refused_together(server):
    with pytest.raises(openai.BadRequestError, match="several replies"):
        server.ask(STOPS["allow"], n=2, temperature=1.0, **WATCHED)


def test_clients_cannot_tell_the_workers_what_to_do(server):
    for forged in ("off", 0):
        _, reply = server.ask(STOPS["block"], extra_body={"vllm_xargs": {"guardrail": forged}})
        assert reply.choices[0].finish_reason == "content_filter"


def test_raw_prompts_are_guarded_each_for_itself(server):
    texts = [rendered(server, STOPS[action]) for action in ("block", "allow")]
    response = server.client.completions.with_raw_response.create(
        model="demo", prompt=texts, max_tokens=4, temperature=0
    )
    first, second = response.parse().choices
    assert (first.finish_reason, first.text) == ("content_filter", TEXTS["block"])
    assert second.finish_reason == "length"
    assert response.headers["x-guardrail-action"] == "block"
    assert any("raw text" in warning for warning in record(server, response.headers).decision.warnings)


def rendered(server, messages):
    """The token ids of a chat."""
    body = {"model": "demo", "messages": messages}
    return httpx.post(f"{server.url}/tokenize", json=body).json()["tokens"]


@pytest.mark.parametrize("path", ["responses", "messages"])
def test_other_apis_of_vllm_are_guarded_as_well(server, path):
    system, user = (turn["content"] for turn in STOPS["block"])
    bodies = {
        "responses": {"instructions": system, "input": user, "max_output_tokens": 8},
        "messages": {"system": system, "messages": [{"role": "user", "content": user}], "max_tokens": 8},
    }
    answer = server.client.post(f"/{path}", cast_to=object, body={"model": "demo", **bodies[path]})
    assert TEXTS["block"] in str(answer)


def test_beam_search_is_refused_with_the_reason(server):
    with pytest.raises(openai.BadRequestError, match="beam search cannot be guarded"):
        server.ask(STOPS["allow"], extra_body={"use_beam_search": True}, n=2)


def test_what_cannot_be_read_is_what_policies_say(server):
    begun = [*STOPS["allow"], {"role": "assistant", "content": "Well"}]
    headers, reply = server.ask(begun)
    assert reply.choices[0].finish_reason == "content_filter"
    assert (headers["x-guardrail-status"], headers["x-guardrail-action"]) == ("not_evaluated", "block")
    headers, _ = server.ask(STOPS["allow"], extra_body={"add_generation_prompt": False})
    assert "does not end where a reply begins" in headers["x-guardrail-reason"]


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "this"}'}}


def test_what_the_template_leaves_out_is_what_policies_say(server, guard):
    said = {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    messages = [*STOPS["allow"], said, {"role": "user", "content": "And?"}]
    same = guard.check(messages).decision
    headers, reply = server.ask(messages)
    assert same.action == "block"
    assert "leaves out the tool calls of turn" in same.error
    assert reply.choices[0].finish_reason == "content_filter"
    assert (headers["x-guardrail-status"], headers["x-guardrail-reason"]) == ("not_evaluated", same.error)


@pytest.mark.parametrize(
    "more",
    [
        {"content": [{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "No."}]},
        {"document": "A text beside the content."},
    ],
    ids=["part", "key"],
)
def test_what_is_no_text_is_unread_as_by_guardrail_serve(server, guard, more):
    messages = [{"role": "user", "content": "Hi", **more}, *STOPS["allow"]]
    same = guard.check(messages).decision
    headers, _ = server.ask(messages)
    assert same.action == headers["x-guardrail-action"] == "block"
    assert same.status == headers["x-guardrail-status"] == "not_evaluated"


def test_a_person_can_lift_an_escalation(server):
    headers, _ = server.ask(STOPS["escalate"])
    ticket = headers["x-guardrail-ticket-id"]
    ReviewQueue(server.folder / "queue.sqlite").resolve(ticket, approve=True, resolver="ann")
    headers, reply = server.ask(STOPS["escalate"], extra_headers={"x-guardrail-ticket": ticket})
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert headers["x-guardrail-lifted"] == "to-a-person"


def test_sixty_four_at_once_are_decided_as_each_alone(server):
    stops = [TOUR[i % len(TOUR)] for i in range(64)]
    with ThreadPoolExecutor(64) as threads:
        found = list(threads.map(lambda stop: server.ask(stop.messages), stops))
    assert [headers["x-guardrail-action"] for headers, _ in found] == [stop.expected for stop in stops]
    alone = {stop.name: server.ask(stop.messages)[1].choices[0].message.content for stop in TOUR}
    assert [reply.choices[0].message.content for _, reply in found] == [alone[stop.name] for stop in stops]


def test_a_client_that_leaves_ends_its_reply(server):
    stream = server.client.chat.completions.with_raw_response.create(
        model="demo", messages=STOPS["allow"], max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    chunks = stream.parse()
    next(chunks)
    chunks.close()
    server.until(lambda: record(server, stream.headers).outcome == "cancelled")


def test_policies_are_reloaded_and_bad_ones_are_not(server):
    good = server.policies.read_text()
    try:
        change(server, good.replace("help with that", "help you"), "policies were reloaded")
        assert server.ask(STOPS["block"])[1].choices[0].message.content == "I can't help you."
        change(server, good.replace("layers: [8]", "layers: [4]"), "vLLM does not compute a prompt twice")
        other = good.replace("vectors: demo", f"vectors: {another_model(server.folder)}")
        change(server, other, "made for a model of")
        assert server.ask(STOPS["block"])[1].choices[0].message.content == "I can't help you."
    finally:
        change(server, good, "policies were reloaded")


def another_model(folder):
    from guardrail.testing import hand_made_vectors

    path = folder / "other.safetensors"
    hand_made_vectors().save(path)
    return path.name


def change(server, text, said):
    """Write other policies, and wait for what the log says about them."""
    before = server.log.count(said)
    server.policies.write_text(text)
    server.until(lambda: server.log.count(said) > before)


def test_the_record_of_all_that_was_verifies(server):
    report = verify(server.folder / "audit.jsonl")
    assert (report.faults, report.interrupted) == ((), 0)
