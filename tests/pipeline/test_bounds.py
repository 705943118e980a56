"""What bounds a request whatever its actions, its policies and its engine do."""

from dataclasses import replace

import pytest
from tiny import NEVER, guard, policy

from guardrail.audit import read
from guardrail.engines import Scored
from guardrail.engines.builtin import guardrail_engine as built_in_engine
from guardrail.errors import EvaluationError, PromptError
from guardrail.pipeline.admission import admit
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.request import request
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Answer, NoConfig, Retry
from guardrail.types import STOP, Message

ROUNDS = 20
LONG = "many words " * 100


class Again:
    """An action that never stops asking for another round; it gives up only so that the test can fail."""

    name = "again"
    strength = 25
    Config = NoConfig

    def __init__(self):
        self.responses = 0

    def compile(self, config):
        return STOP

    def respond(self, config, context):
        self.responses += 1
        if self.responses > 2 * ROUNDS:
            return Answer("nobody stopped it")
        return Retry((*context.messages, Message("user", f"Again {self.responses}")))

    @hookimpl
    def guardrail_actions(self):
        return [self]


def chatted(made):
    return made.chat("Hello")


def streamed(made):
    stream = made.stream("Hello")
    list(stream)
    return stream.reply


@pytest.mark.parametrize("ask", [chatted, streamed])
def test_an_action_that_always_asks_for_another_round_ends_in_the_policys_message(tmp_path, ask):
    action = Again()
    rule = policy("again", message="Enough.")
    with guard(tmp_path, rule, options={"plugins": [action]}) as made:
        reply = ask(made)
    assert reply.text == "Enough."
    assert len(reply.earlier) + 1 == ROUNDS
    assert action.responses == ROUNDS


@pytest.mark.parametrize("cutting_first", [True, False])
def test_one_policy_that_needs_the_whole_prompt_is_enough_to_refuse_a_longer_one(tmp_path, cutting_first):
    cutting = policy(threshold=NEVER, on_truncate="score_tail", id="cutting")
    whole = policy(threshold=NEVER, on_truncate="error", id="whole")
    rules = (cutting, whole) if cutting_first else (whole, cutting)
    with guard(tmp_path, *rules) as made, pytest.raises(PromptError, match="tokens"):
        made.check(LONG)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_check_needs_room_for_one_token_of_a_reply(tmp_path, excess):
    with guard(tmp_path, policy()) as made:
        around = len(made.engine.render([Message("user", "")]).ids)
        text = "x" * (made.engine.max_tokens - 1 - around + excess)
        if excess:
            with pytest.raises(PromptError, match="512 tokens, 1 more than fit"):
                made.check(text)
        else:
            assert made.check(text).decision.action == "block"


class Miscounting:
    """A plugin with an engine that makes fewer or more decisions than there are prompts."""

    guardrail_engines = hookimpl(lambda self: ["miscounting"])

    def __init__(self, recount):
        self.recount = recount

    @hookimpl
    def guardrail_engine(self, name, model, tokenizer, chat_template, template_arguments):
        if name != "miscounting":
            return None
        engine = built_in_engine("transformers", model, tokenizer, chat_template, template_arguments)
        engine.check = self.emitting(engine.check, at=3)
        engine.reply = self.emitting(engine.reply, at=4)
        return engine

    def emitting(self, method, at):
        def call(*arguments):
            emit = arguments[at]
            return method(*arguments[:at], lambda event: emit(self.recounted(event)), *arguments[at + 1 :])

        return call

    def recounted(self, event):
        return replace(event, decisions=self.recount(event.decisions)) if isinstance(event, Scored) else event


MISCOUNTS = {
    "none": lambda decisions: (),
    "one too few": lambda decisions: decisions[1:],
    "one too many": lambda decisions: (*decisions, decisions[0]),
}


@pytest.mark.parametrize("recount", MISCOUNTS.values(), ids=MISCOUNTS)
@pytest.mark.parametrize("ask", ["chat_many", "check_many"])
def test_an_engine_that_does_not_decide_once_for_every_prompt_is_an_error(tmp_path, ask, recount):
    log = tmp_path / "audit.jsonl"
    options = {"engine": "miscounting", "plugins": [Miscounting(recount)]}
    with (
        guard(tmp_path, policy(threshold=NEVER), options=options, audit={"jsonl": str(log)}) as made,
        pytest.raises(EvaluationError, match="once"),
    ):
        getattr(made, ask)(["Hello", "there"])
    assert {record.outcome for record in read(log)} <= {"error"}


def shadow(on_truncate):
    return policy(threshold=NEVER, on_truncate=on_truncate, mode="shadow", id="shadow")


def test_a_shadow_policy_does_not_keep_an_enforced_one_from_cutting(tmp_path):
    cutting = policy(threshold=NEVER, on_truncate="score_tail")
    with guard(tmp_path, shadow("error"), cutting) as made:
        assert made.check(LONG).decision.status == "evaluated"


def test_shadow_policies_alone_say_whether_to_cut(tmp_path):
    with guard(tmp_path, shadow("score_tail"), allow_empty=True) as made:
        assert made.check(LONG).decision.status == "evaluated"
    with (
        guard(tmp_path, shadow("error"), allow_empty=True) as made,
        pytest.raises(PromptError, match="tokens"),
    ):
        made.check(LONG)


@pytest.mark.parametrize(("room", "left"), [(1, 511), (100, 412), (500, 256)])
def test_a_cut_prompt_keeps_its_end_and_leaves_room_for_the_reply(tmp_path, room, left):
    with guard(tmp_path, policy(threshold=NEVER, on_truncate="score_tail")) as made:
        assert made.engine.max_tokens == 512
        exchange = Exchange.of(request("chat", LONG), made.active)
        (prompt,) = admit(made.engine, [exchange], room).prompts
        whole = made.engine.render(exchange.messages).ids
    assert prompt.ids == whole[-left:]
    assert exchange.prompt_tokens == left
    assert f"the first {len(whole) - left} tokens" in exchange.warnings[0]


class Silent:
    """A plugin with an engine that sends no pieces of a streamed reply."""

    guardrail_engines = hookimpl(lambda self: ["silent"])

    @hookimpl
    def guardrail_engine(self, name, model, tokenizer, chat_template, template_arguments):
        if name != "silent":
            return None
        engine = built_in_engine("transformers", model, tokenizer, chat_template, template_arguments)
        reply = engine.reply
        engine.reply = lambda *arguments: reply(*arguments[:5])
        return engine


def test_a_stream_without_pieces_still_ends_in_the_whole_reply(tmp_path):
    options = {"engine": "silent", "plugins": [Silent()]}
    with guard(tmp_path, policy(threshold=NEVER), options=options) as made:
        stream = made.stream("Hello", temperature=0, max_new_tokens=4)
        assert list(stream) == []
        assert stream.reply.text == made.chat("Hello", temperature=0, max_new_tokens=4).text != ""
