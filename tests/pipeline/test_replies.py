"""Response policies through the whole product: chat, streams, batches, generate, people, records."""

import asyncio
import threading
from functools import partial

import pytest
import torch
from tiny import TOKENIZER, batch, guard, policy
from transformers import TextIteratorStreamer

from guardrail.audit.lines import record_from_json, record_to_json
from guardrail.cli.verdicts import reason
from guardrail.errors import GuardClosed
from guardrail.files.decision_rows import decision_rows
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Answer, NoConfig, Retry
from guardrail.testing import MemoryAudit, MemoryQueue, tiny_model
from guardrail.types import STOP, Message, Reply, Sampling

GREEDY = {"temperature": 0, "max_new_tokens": 12}
NEVER, ALWAYS = {"raw": 1e6}, {"raw": -1e6}
REFUSAL = "No more of this."
PROMPT = "one more prompt"


def response(threshold=ALWAYS, action="block", id="replies", **keys):
    return policy(action, threshold, id=id, stage="response", message=REFUSAL, **keys)


def unguarded(folder, *texts, **sampling):
    with guard(folder, policy(threshold=1e6)) as made:
        return [made.chat(text, **{**GREEDY, **sampling}).text for text in texts]


def sent_before(streamed):
    """What a stopped stream had sent before the message; transformers decides how much it holds back."""
    assert streamed.endswith(REFUSAL)
    return streamed.removesuffix(REFUSAL).removesuffix("\n\n")


@pytest.fixture
def memory():
    class Sinks:
        def __init__(self):
            self.audit, self.queue = MemoryAudit(), MemoryQueue()

        @hookimpl
        def guardrail_audit_sinks(self):
            return [self.audit]

        @hookimpl
        def guardrail_escalation_sinks(self):
            return [self.queue]

    return Sinks()


def test_a_chat_that_is_stopped_is_the_message_alone(tmp_path):
    with guard(tmp_path, response()) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.text, reply.outcome, reply.new_tokens) == (REFUSAL, "blocked", 4)
    assert reply.history == ()
    assert (reply.decision.action, reply.decision.stage) == ("allow", "prompt")
    assert (reply.reply_decision.action, reply.reply_decision.stage, reply.reply_decision.token) == (
        "block",
        "response",
        1,
    )
    assert reply.reply_decision.policy == "replies"
    assert reply.final is reply.reply_decision


def test_a_reply_that_passes_has_a_decision_that_says_so(tmp_path):
    (text,) = unguarded(tmp_path, PROMPT)
    with guard(tmp_path, response(NEVER)) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.text, reply.outcome) == (text, "answered")
    assert reply.history[-1] == Message("assistant", text)
    assert (reply.reply_decision.status, reply.reply_decision.action, reply.reply_decision.token) == (
        "evaluated",
        "allow",
        None,
    )
    assert reply.final.scores[0].score < 1e6


def test_without_a_response_policy_there_is_one_decision(tmp_path):
    with guard(tmp_path, policy(threshold=1e6)) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert reply.reply_decision is None
    assert reply.final is reply.decision


def test_a_stopped_prompt_has_no_reply_to_decide_on(tmp_path):
    with guard(tmp_path, policy(id="first"), response()) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.outcome, reply.reply_decision, reply.final.policy) == ("blocked", None, "first")


LONG = {"temperature": 0, "max_new_tokens": 40}


MODELS = ((53, PROMPT), (57, "abc defghi jkl"), (20, "hello world"), (15, "abc defghi jkl"))
"""(seed of a tiny model, prompt) whose replies have spaces and line ends, at which streams release text."""


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """A policy that fires in the middle of a streamed reply; (policy, prompt, the whole reply, the model)."""
    folder, monitor = tmp_path_factory.mktemp("late"), {"statistic": "max", "window": 1, "every": 1}
    for seed, text in MODELS:
        with guard(folder, response(NEVER, monitor=monitor), model=tiny_model(seed=seed)) as made:
            whole = made.chat(text, **LONG)
        rule = response({"raw": whole.reply_decision.scores[0].score}, monitor=monitor)
        with guard(folder, rule, model=tiny_model(seed=seed)) as made:
            stream = made.stream(text, **LONG)
            pieces = list(stream)
        if len(pieces) > 1 and stream.reply.outcome == "blocked":
            return rule, text, whole.text, lambda seed=seed: tiny_model(seed=seed)
    return pytest.fail("no reply is stopped in its middle")


def test_a_stream_keeps_what_was_sent_and_ends_with_the_message(tmp_path, late):
    rule, text, whole, model = late
    with guard(tmp_path, rule, model=model()) as made:
        stream = made.stream(text, **LONG)
        pieces = list(stream)
    reply: Reply = stream.reply
    sent = "".join(pieces[:-1])
    assert sent
    assert whole.startswith(sent)
    assert pieces[-1] == f"\n\n{REFUSAL}"
    assert reply.text == "".join(pieces)
    assert len(sent) < len(whole)
    assert (reply.outcome, reply.history, reply.new_tokens) == ("blocked", (), reply.reply_decision.token)
    assert stream.decision.action == "allow"


def test_what_a_stream_had_not_sent_is_never_sent(tmp_path):
    (out_by_then,) = unguarded(tmp_path, PROMPT, max_new_tokens=4)
    with guard(tmp_path, response()) as made:
        stream = made.stream(PROMPT, **GREEDY)
        *pieces, message = list(stream)
    assert out_by_then.startswith(sent_before("".join(pieces) + message))
    assert (stream.reply.reply_decision.token, stream.reply.new_tokens) == (1, 4)


def test_async_forms_are_the_same(tmp_path, late):
    rule, text, _, model = late

    async def ask(made):
        return await made.achat(text, **LONG), [piece async for piece in made.astream(text, **LONG)]

    with guard(tmp_path, rule, model=model()) as made:
        reply, pieces = asyncio.run(ask(made))
        assert pieces == list(made.stream(text, **LONG))
    assert reply.text == REFUSAL


def test_a_batch_with_one_stopped_row(tmp_path):
    texts = ["hello world", PROMPT, "what is this?", "Q"]
    with guard(tmp_path, response(NEVER)) as made:
        free = made.chat_many(texts, **GREEDY)
        highest = sorted(range(4), key=lambda i: free[i].reply_decision.scores[0].score)
    between = [free[i].reply_decision.scores[0].score for i in highest[-2:]]
    with guard(tmp_path, response({"raw": sum(between) / 2})) as made:
        replies = made.chat_many(texts, **GREEDY)
    for i, (reply, before) in enumerate(zip(replies, free, strict=True)):
        stopped = i == highest[-1]
        assert (reply.outcome == "blocked") == stopped
        assert reply.text == (REFUSAL if stopped else before.text)


def test_two_streams_at_once_of_which_one_is_stopped(tmp_path):
    (text,) = unguarded(tmp_path, "hello world")
    (out_by_then,) = unguarded(tmp_path, PROMPT, max_new_tokens=4)
    found, rounds = {}, 6

    def read(made, name, tags, prompt):
        found[name] = ["".join(made.stream(prompt, tags=tags, **GREEDY)) for _ in range(rounds)]

    with guard(tmp_path, response(when={"tags": ["strict"]})) as made:
        threads = [
            threading.Thread(target=read, args=(made, "free", [], "hello world")),
            threading.Thread(target=read, args=(made, "strict", ["strict"], PROMPT)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found["free"] == [text] * rounds
    assert len(found["strict"]) == rounds
    assert all(out_by_then.startswith(sent_before(streamed)) for streamed in found["strict"])


@pytest.mark.filterwarnings("ignore::guardrail.pipeline.installation.UnguardedWarning")
def test_a_stream_that_is_closed_early_frees_the_model_and_is_recorded(tmp_path, late, memory):
    rule, text, whole, model = late
    with guard(tmp_path, {**rule, "threshold": NEVER}, model=model(), options={"plugins": [memory]}) as made:
        stream = made.stream(text, **LONG)
        first = next(stream)
        stream.close()
        assert made.chat(text, **LONG).text == whole
        assert torch.equal(
            made.model.generate(**batch(1), max_new_tokens=4, do_sample=False, pad_token_id=0),
            model().generate(**batch(1), max_new_tokens=4, do_sample=False, pad_token_id=0),
        )
    assert whole.startswith(first)
    outcomes = [record.outcome for record in memory.audit.records.values()]
    assert outcomes == ["cancelled", "answered"]


def test_a_guard_that_is_closed_in_mid_stream_finishes_the_stream(tmp_path, late):
    rule, text, whole, model = late
    with guard(tmp_path, {**rule, "threshold": NEVER}, model=model()) as made:
        stream = made.stream(text, **LONG)
        first = next(stream)
        closing = threading.Thread(target=made.close)
        closing.start()
        assert first + "".join(stream) == whole
        closing.join()
        with pytest.raises(GuardClosed):
            made.chat(text)
    assert all("forward" not in module.__dict__ for module in made.model.modules())


def test_records_hold_both_decisions(tmp_path, memory):
    with guard(tmp_path, response(), options={"plugins": [memory]}) as made:
        reply = made.chat(PROMPT, **GREEDY)
    record = memory.audit.records[reply.audit_id]
    assert (record.outcome, record.decision.action, record.reply_decision.action) == (
        "blocked",
        "allow",
        "block",
    )
    row = record_to_json(record)
    assert (
        row["reply_decision"]["token"],
        row["reply_decision"]["policy"],
        row["reply_decision"]["stage"],
    ) == (
        1,
        "replies",
        "response",
    )
    assert row["reply_decision"]["scores"][0]["fired"]
    assert record_from_json(row).reply_decision.token == 1
    old = {("response" if key == "reply_decision" else key): value for key, value in row.items()}
    assert record_from_json(old).reply_decision.token == 1, "a log of version 0.1 can still be read"
    del row["reply_decision"]
    assert record_from_json(row).reply_decision is None


def test_json_for_scripts_holds_both_decisions(tmp_path):
    with guard(tmp_path, response()) as made:
        (row,) = decision_rows(reply := made.chat(PROMPT, **GREEDY))
    assert (row["action"], row["reply_decision"]["action"], row["reply_decision"]["token"]) == (
        "allow",
        "block",
        1,
    )
    assert "(reply token 1)" in reason(reply.reply_decision)


def test_escalation_stops_the_reply_and_shows_a_person_what_was_said(tmp_path, memory, late):
    rule, text, whole, model = late
    action = {"escalate": {"to": "memory-queue", "holding": "Wait."}}
    with guard(tmp_path, {**rule, "action": action}, model=model(), options={"plugins": [memory]}) as made:
        reply = made.chat(text, **LONG)
        stream = made.stream(text, **LONG)
        pieces = list(stream)
    assert (reply.text, reply.outcome) == ("Wait.", "escalated")
    assert pieces[-1] == "\n\nWait."
    ticket = memory.queue.get(reply.ticket_id)
    assert ticket.decision.stage == "response"
    assert [message.role for message in ticket.messages] == ["user", "assistant"]
    assert ticket.messages[-1].content
    assert whole.startswith(ticket.messages[-1].content.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert stream.reply.ticket_id != reply.ticket_id
    streamed = memory.queue.get(stream.reply.ticket_id)
    assert streamed.messages == (Message("user", text), Message("assistant", "".join(pieces[:-1])))


def test_a_stream_that_is_stopped_before_it_sent_anything_is_the_message_alone(tmp_path):
    with guard(tmp_path, response(monitor={"every": 1})) as made:
        # the reply begins with one byte of a longer character, which waits for the others
        stream = made.stream("Be kind.", **GREEDY)
        assert list(stream) == [REFUSAL]
    assert (stream.reply.text, stream.reply.new_tokens) == (REFUSAL, 1)


class Rewriting:
    """An action that lets the model write the answer."""

    name, strength, Config = "rewriting", 35, NoConfig

    def compile(self, config):
        return STOP

    def respond(self, config, context):
        return Answer(f"rewritten: {context.complete([Message('user', 'Be kind.')])}")

    @hookimpl
    def guardrail_actions(self):
        return [self]


@pytest.mark.parametrize("rule", [policy("rewriting"), response(action="rewriting", monitor={"every": 1})])
def test_an_action_can_let_the_model_write_the_answer(tmp_path, rule, monkeypatch):
    monkeypatch.setattr("guardrail.pipeline.unguarded.Sampling", partial(Sampling, max_new_tokens=16))
    (text,) = unguarded(tmp_path, "Be kind.", temperature=None, seed=None, max_new_tokens=16)
    with guard(tmp_path, rule, options={"plugins": [Rewriting()]}) as made:
        assert made.chat(PROMPT, **GREEDY).text == f"rewritten: {text}"
        assert "".join(made.stream(PROMPT, **GREEDY)).endswith(f"rewritten: {text}")


def test_if_no_person_can_be_asked_the_reply_is_refused(tmp_path, memory):
    memory.queue.failing = True
    rule = response(action={"escalate": {"to": "memory-queue"}})
    with guard(tmp_path, rule, options={"plugins": [memory]}) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.text, reply.outcome, reply.ticket_id) == (REFUSAL, "blocked", None)


def test_steering_from_here_on(tmp_path):
    (text,) = unguarded(tmp_path, PROMPT)
    steer = {"steer": {"operator": "add", "coefficient": -3.0, "layers": "all"}}
    with guard(tmp_path, response(action=steer)) as made:
        reply = made.chat(PROMPT, **GREEDY)
        stream = made.stream(PROMPT, **GREEDY)
        assert "".join(stream) == reply.text
    assert reply.text != text
    assert (reply.outcome, reply.final.action) == ("answered", "steer")
    assert 10 <= reply.steered_passes <= 11


def test_a_plugins_action_that_wants_another_round_is_a_refusal(tmp_path):
    class Again:
        name, strength, Config = "again", 35, NoConfig

        def compile(self, config):
            return STOP

        def respond(self, config, context):
            assert context.decision.stage == "response"
            return Retry(context.messages)

    class Plugin:
        @hookimpl
        def guardrail_actions(self):
            return [Again()]

    with guard(tmp_path, response(action="again"), options={"plugins": [Plugin()]}) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.text, reply.outcome, len(reply.earlier)) == (REFUSAL, "blocked", 0)


@pytest.mark.parametrize(("mode", "would"), [("shadow", "block"), ("off", None)])
def test_modes(tmp_path, mode, would):
    (text,) = unguarded(tmp_path, PROMPT)
    rules = (response(mode=mode), policy(id="other", threshold=1e6))
    with guard(tmp_path, *rules) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert (reply.text, reply.outcome) == (text, "answered")
    assert (reply.reply_decision and reply.reply_decision.would_action) == would


def test_rollout_by_share_of_conversations(tmp_path):
    with guard(tmp_path, response(enforce={"share": 0.5})) as made:
        replies = [made.chat(PROMPT, conversation=f"c{i}", **GREEDY) for i in range(12)]
    assert {reply.outcome for reply in replies} == {"blocked", "answered"}
    assert all(reply.reply_decision.would_action == "block" for reply in replies)


def test_generate_gives_the_message_in_place_of_a_stopped_reply(tmp_path):
    with guard(tmp_path, response()) as made:
        inputs = batch(2)
        output = made.generate(**inputs, max_new_tokens=12, do_sample=False, return_dict_in_generate=True)
        bare = made.generate(**inputs, max_new_tokens=12, do_sample=False)
        responses = made.last_reply_decisions
    width = inputs["input_ids"].shape[1]
    for row in range(2):
        assert TOKENIZER.decode(output.sequences[row, width:]) == f"{REFUSAL}<|end|>"
    assert torch.equal(bare, output.sequences)
    assert [d.action for d in output.decisions] == ["allow", "allow"]
    assert [d.action for d in output.reply_decisions] == ["block", "block"] == [d.action for d in responses]


def test_a_streamer_of_generate_gets_what_was_sent_then_the_message_then_the_end(tmp_path, late):
    rule, text, whole, model = late
    streamer = TextIteratorStreamer(TOKENIZER, skip_prompt=True, skip_special_tokens=True, timeout=20)
    with guard(tmp_path, rule, model=model()) as made:
        ids = torch.tensor([made.engine.render([Message("user", text)]).ids])
        output = made.generate(input_ids=ids, max_new_tokens=40, do_sample=False, streamer=streamer)
        said = "".join(streamer)
    assert said.endswith(REFUSAL)
    assert whole.startswith(said.removesuffix(REFUSAL).rstrip("\N{REPLACEMENT CHARACTER}"))
    assert TOKENIZER.decode(output[0, ids.shape[1] :], skip_special_tokens=True) == said


def test_sampling_with_a_seed_is_unchanged_by_a_policy_that_does_not_fire(tmp_path):
    sampled = {"temperature": 1.0, "seed": 5, "max_new_tokens": 12}
    with guard(tmp_path, policy(threshold=1e6)) as made:
        expected = made.chat(PROMPT, **sampled).text
    with guard(tmp_path, response(NEVER, monitor={"every": 1})) as made:
        assert made.chat(PROMPT, **sampled).text == expected
        assert "".join(made.stream(PROMPT, **sampled)) == expected


def test_input_that_cannot_be_read_follows_the_response_policy_too(tmp_path):
    image = [{"role": "user", "content": [{"type": "image", "url": "x"}, {"type": "text", "text": "Hi"}]}]
    with guard(tmp_path, response(NEVER)) as made:
        assert made.chat(image, **GREEDY).outcome == "blocked"


def test_a_check_generates_nothing_and_so_follows_nothing(tmp_path):
    with guard(tmp_path, response()) as made:
        check = made.check(PROMPT)
    assert (check.decision.action, check.decision.status) == ("allow", "not_evaluated")


def test_rewriting_by_the_model_is_not_followed(tmp_path):
    rephrase = {"rephrase": {"by": "model", "otherwise": "allow"}}
    with guard(tmp_path, policy(rephrase, id="first"), response()) as made:
        reply = made.chat(PROMPT, **GREEDY)
    assert reply.outcome == "blocked"
    assert reply.reply_decision.policy == "replies"


def test_a_reload_brings_and_takes_response_policies(tmp_path):
    from ruamel.yaml import YAML
    from tiny import policies, write_vectors

    from guardrail import Guard

    model, file = tiny_model(), tmp_path / "policies.yaml"
    write_vectors(tmp_path, model)

    def write(*rules):
        YAML(typ="safe", pure=True).dump(policies(tmp_path, *rules), file)

    write(policy(threshold=1e6))
    with Guard(model, TOKENIZER, file) as made:
        assert made.chat(PROMPT, **GREEDY).reply_decision is None
        write(response(layer=4))
        assert made.reload()
        assert made.chat(PROMPT, **GREEDY).outcome == "blocked"
        write(policy(threshold=1e6))
        assert made.reload()
        assert made.chat(PROMPT, **GREEDY).reply_decision is None
