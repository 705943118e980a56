"""The whole flow on a tiny model: what each action does to a chat, a stream, a check and a generate."""

from contextvars import Context

import pytest
import torch
from tiny import FIRES, NEVER, TOKENIZER, batch, guard, policies, policy, rewatch, write_vectors

from guardrail import Guard
from guardrail.audit import read
from guardrail.errors import ConfigError, GuardClosed, ModelError, PolicyError, PromptError
from guardrail.testing import tiny_model
from guardrail.types import Message

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
GREEDY = {"temperature": 0, "max_new_tokens": 6}


def plain_reply(messages=TALK, count=6):
    text = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = TOKENIZER(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    output = tiny_model().generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return TOKENIZER.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_an_allowed_chat_is_the_models_own_reply(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        reply = made.chat(TALK, **GREEDY)
    assert reply.text == plain_reply()
    assert (reply.decision.status, reply.decision.action, reply.decision.policy) == (
        "evaluated",
        "allow",
        None,
    )
    assert reply.history == (
        Message("system", "Be brief."),
        Message("user", "Hello there"),
        Message("assistant", reply.text),
    )
    assert reply.new_tokens == 6
    assert [score.fired for score in reply.decision.scores] == [False]


def test_a_blocked_chat_is_the_policys_message_and_leaves_the_refused_turn_out(tmp_path):
    with guard(tmp_path, policy("block", message="Not this.")) as made:
        reply = made.chat(
            [*TALK, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Worse"}]
        )
    assert reply.text == "Not this."
    assert reply.decision.policy == "test"
    assert [message.content for message in reply.history] == ["Be brief.", "Hello there", "Hi"]
    assert reply.new_tokens == 0


@pytest.mark.parametrize("layers", [None, [1], [1, 4], "all", "incremental"])
def test_a_steered_chat_counts_its_passes(tmp_path, layers):
    action = {"steer": {"operator": "add", "coefficient": -2.0, **({"layers": layers} if layers else {})}}
    with guard(tmp_path, policy(action)) as made:
        reply = made.chat(TALK, **GREEDY)
    assert reply.decision.action == "steer"
    assert reply.steered_passes == reply.new_tokens > 0
    assert reply.text != plain_reply()


def test_a_rephrased_chat_is_evaluated_again_and_then_falls_back(tmp_path):
    with guard(
        tmp_path, policy({"rephrase": {"instruction": "Be careful.", "max_attempts": 1}}, message="No.")
    ) as made:
        reply = made.chat(TALK)
    assert reply.text == "No."
    assert len(reply.earlier) == 1
    assert reply.decision.action == "rephrase"


def test_a_rephrased_chat_that_passes_is_answered_and_keeps_the_original_history(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as scoring:
        before = scoring.check(TALK).decision.scores[0].score
        merged = [{"role": "system", "content": "Be brief.\n\nBe careful."}, TALK[1]]
        after = scoring.check(merged).decision.scores[0].score
    fires = "above" if before > after else "below"
    rule = policy({"rephrase": {"instruction": "Be careful."}}, threshold=(before + after) / 2, fires=fires)
    with Guard(model, TOKENIZER, policies(tmp_path, rule)) as made:
        reply = made.chat(TALK, **GREEDY)
    assert reply.decision.action == "allow"
    assert [decision.action for decision in reply.earlier] == ["rephrase"]
    assert reply.text == plain_reply(merged)
    assert reply.history[0].content == "Be brief."


def test_the_model_can_rewrite_the_users_message(tmp_path):
    with guard(tmp_path, policy({"rephrase": {"by": "model", "otherwise": "allow"}})) as made:
        reply = made.chat(TALK, **GREEDY)
    assert reply.decision.action == "allow"
    assert reply.decision.status == "not_evaluated"


def test_an_escalated_chat_holds_and_its_ticket_can_be_resolved(tmp_path):
    with guard(tmp_path, policy({"escalate": {"holding": "Wait."}})) as made:
        reply = made.chat(TALK)
        ticket = made.ticket(reply.ticket_id)
        assert (reply.text, ticket.state, ticket.messages[-1].content) == ("Wait.", "pending", "Hello there")
        made.sinks["review-queue"].resolve(ticket.id, True, "somebody")
        assert made.ticket(reply.ticket_id).state == "approved"
        assert made.ticket("unknown") is None


@pytest.mark.parametrize(("approve", "expected"), [(True, None), (False, "No.")])
def test_waiting_for_a_person_ends_with_what_the_person_says(tmp_path, approve, expected):
    import threading

    def resolve(made):
        sink = made.sinks["review-queue"]
        while not (tickets := sink.pending()):
            pass
        sink.resolve(tickets[0].id, approve, "somebody")

    with guard(tmp_path, policy({"escalate": {"wait_s": 30}}, message="No.")) as made:
        person = threading.Thread(target=resolve, args=(made,))
        person.start()
        reply = made.chat(TALK, **GREEDY)
        person.join()
    assert reply.text == (expected or plain_reply())


def test_nobody_answering_in_time_is_a_block(tmp_path):
    with guard(tmp_path, policy({"escalate": {"wait_s": 0.05}}, message="No.")) as made:
        assert made.chat(TALK).text == "No."


def test_a_stream_is_decided_before_its_first_piece(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        stream = made.stream(TALK, **GREEDY)
        assert stream.decision.action == "allow"
        assert stream.reply is None
        text = "".join(stream)
        assert (stream.reply.text, stream.reply.new_tokens) == (text, 6)
    assert text == plain_reply()


def test_a_blocked_stream_is_the_message_alone(tmp_path):
    with guard(tmp_path, policy(message="No.")) as made:
        stream = made.stream(TALK)
        assert list(stream) == ["No."]
        assert stream.reply.decision.action == "block"


def test_a_stream_closed_early_stops_the_generation_and_says_cancelled(tmp_path):
    log = tmp_path / "audit.jsonl"
    with guard(tmp_path, policy(threshold=NEVER), audit={"jsonl": str(log)}) as made:
        stream = made.stream(TALK, max_new_tokens=400, temperature=0)
        next(stream)
        stream.close()
        assert made.chat(TALK, **GREEDY).text == plain_reply()
    assert [record.outcome for record in read(log)] == ["cancelled", "answered"]


def test_check_decides_and_generates_nothing(tmp_path):
    with guard(tmp_path, policy()) as made:
        made.engine.blocks[3].register_forward_pre_hook(
            lambda m, args: pytest.fail("a layer above was computed")
        )
        rewatch(made)
        check = made.check("Hello")
    assert check.decision.action == "block"
    assert check.timing.prefill > 0


def test_batches_decide_row_by_row(tmp_path):
    talks = ["one", "two", "three, which is longer", "four"]
    model = tiny_model()
    write_vectors(tmp_path, model)
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as scoring:
        alone = [scoring.check(talk).decision.scores[0].score for talk in talks]
        together = [check.decision.scores[0].score for check in scoring.check_many(talks)]
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-4)
    middle = sorted(alone)[1:3]
    with Guard(
        model, TOKENIZER, policies(tmp_path, policy(threshold=sum(middle) / 2, message="No."))
    ) as made:
        replies = made.chat_many(talks, **GREEDY)
        single = [made.chat(talk, **GREEDY).text for talk in talks]
    assert [reply.text for reply in replies] == single
    assert sum(reply.decision.action == "block" for reply in replies) == 2


def test_generate_returns_what_the_model_returns(tmp_path):
    inputs = batch(3)
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        output = made.generate(**inputs, max_new_tokens=6, pad_token_id=0, do_sample=False)
        decisions = made.last_decisions
    assert torch.equal(
        output, tiny_model().generate(**inputs, max_new_tokens=6, pad_token_id=0, do_sample=False)
    )
    assert [decision.action for decision in decisions] == ["allow"] * 3


def test_before_the_first_generate_there_are_no_last_decisions(tmp_path):
    with guard(tmp_path, policy()) as made:
        assert Context().run(lambda: (made.last_decisions, made.last_reply_decisions)) == ((), ())


def test_generate_puts_the_message_in_blocked_rows_and_the_decisions_on_the_output(tmp_path):
    with guard(tmp_path, policy(message="No.")) as made:
        output = made.generate(**batch(2), max_new_tokens=6, pad_token_id=0, return_dict_in_generate=True)
    width = batch(2)["input_ids"].shape[1]
    assert [TOKENIZER.decode(row, skip_special_tokens=True) for row in output.sequences[:, width:]] == [
        "No.",
        "No.",
    ]
    assert [decision.policy for decision in output.decisions] == ["test", "test"]


def test_generate_says_that_it_cannot_rephrase_and_takes_the_otherwise(tmp_path):
    with guard(tmp_path, policy({"rephrase": {"otherwise": "block"}}, message="No.")) as made:
        made.generate(**batch(1), max_new_tokens=6, pad_token_id=0)
        (decision,) = made.last_decisions
    assert any("rephrase" in warning for warning in decision.warnings)
    assert decision.action == "rephrase"


def test_seeded_replies_repeat_and_leave_the_callers_random_state_alone(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        torch.manual_seed(1)
        state = torch.get_rng_state()
        replies = [made.chat(TALK, temperature=1.0, seed=7, max_new_tokens=8).text for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), state)
        other = made.chat(TALK, temperature=1.0, seed=8, max_new_tokens=8).text
    assert replies[0] == replies[1] != other


def test_projections_are_the_scores_that_policies_see(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        scores = made.project(TALK, traits=["evil"])
        tokens = made.project(TALK, traits=["evil"], layers=[3], position="all")
        decided = made.check(TALK).decision.scores[0].score
        assert scores.shape == (1, 4)
        assert scores[0, 2] == pytest.approx(decided, rel=1e-3)
        assert tokens[0, 0, -1] == pytest.approx(decided, rel=1e-3)
        with pytest.raises(ConfigError, match="no vector for the trait"):
            made.project(TALK, traits=["vice"])


def test_the_users_objects_stay_the_users(tmp_path):
    model = tiny_model()
    write_vectors(tmp_path, model)
    before = (TOKENIZER.padding_side, TOKENIZER.pad_token, model.generation_config.to_dict())
    with Guard(model, TOKENIZER, policies(tmp_path, policy(threshold=NEVER))) as made:
        made.chat(TALK, **GREEDY)
        assert made.model is model
        assert made.tokenizer is TOKENIZER
    assert (TOKENIZER.padding_side, TOKENIZER.pad_token, model.generation_config.to_dict()) == before
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_closed_guard_says_so(tmp_path):
    with guard(tmp_path, policy()) as made:
        pass
    with pytest.raises(GuardClosed):
        made.chat(TALK)


def test_no_policies_and_vectors_of_another_model_are_errors_and_free_the_model(tmp_path):
    model = tiny_model()
    with pytest.raises(ConfigError, match="no policies"):
        Guard(model, TOKENIZER)
    write_vectors(tmp_path, tiny_model(seed=1))
    with pytest.raises(PolicyError, match="another model"):
        Guard(model, TOKENIZER, policies(tmp_path, policy()))
    with Guard(model, TOKENIZER, policies(tmp_path, policy(), allow_model_mismatch=True)) as made:
        assert any("allow_model_mismatch" in warning for warning in made.check("Hi").decision.warnings)


def test_loading_by_name_takes_a_folder_and_reports_what_is_not_there(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    from transformers import AutoModelForCausalLM

    write_vectors(tmp_path, AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    with Guard.from_pretrained(
        str(tmp_path / "model"), policies(tmp_path, policy(threshold=NEVER)), dtype="float32"
    ) as made:
        assert made.chat(TALK, **GREEDY).text == plain_reply()
        assert made.engine.fingerprint.weights.startswith("files:")
    with pytest.raises(ModelError, match="cannot be loaded: there is no such file or folder here"):
        Guard.from_pretrained(str(tmp_path / "nothing"), policies(tmp_path, policy()))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ("  ", "empty"),
        ([{"role": "wizard", "content": "x"}], "unknown role"),
        ([7], "mapping"),
    ],
)
def test_requests_that_make_no_sense_are_errors(tmp_path, messages, reason):
    with guard(tmp_path, policy()) as made, pytest.raises(PromptError, match=reason):
        made.chat(messages)


def test_async_forms_give_the_same(tmp_path):
    import asyncio

    async def everything(made):
        reply = await made.achat(TALK, **GREEDY)
        check = await made.acheck(TALK)
        pieces = [piece async for piece in made.astream(TALK, **GREEDY)]
        return reply.text, check.decision.action, "".join(pieces)

    with guard(tmp_path, policy(threshold=NEVER)) as made:
        assert asyncio.run(everything(made)) == (plain_reply(), "allow", plain_reply())


def test_shadow_policies_are_scored_and_change_nothing(tmp_path):
    with guard(tmp_path, policy(threshold=FIRES, mode="shadow"), allow_empty=True) as made:
        reply = made.chat(TALK, **GREEDY)
    assert reply.text == plain_reply()
    assert (reply.decision.action, reply.decision.would_action) == ("allow", "block")


@pytest.mark.parametrize("ask", ["chat_many", "generate"])
def test_every_prompt_of_a_call_has_its_tags(tmp_path, ask):
    from tiny import batch

    with guard(tmp_path, policy(when={"tags": ["public"]})) as made:
        tags = (tag for tag in ["public"])
        if ask == "generate":
            made.generate(**batch(3), tags=tags, max_new_tokens=2, pad_token_id=0)
            actions = [decision.action for decision in made.last_decisions]
        else:
            actions = [reply.decision.action for reply in made.chat_many(["a", "b", "c"], tags=tags)]
    assert actions == ["block"] * 3
