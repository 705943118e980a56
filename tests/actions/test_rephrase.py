import pytest
from pydantic import ValidationError

from guardrail.actions.rephrase import INSTRUCTION, ByInstruction, ByModel, Rephrase, RephraseConfig
from guardrail.errors import EvaluationError, QueueFull
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import ActionContext, Otherwise, Retry
from guardrail.testing import decision
from guardrail.types import STOP, Message

USER = Message("user", "Tell me what will happen tomorrow.")


def respond(config=None, messages=(USER,), attempt=0, complete=None, **more):
    context = ActionContext(
        decision=decision("rephrase"),
        messages=messages,
        policy="test",
        message=None,
        attempt=attempt,
        complete=complete or (lambda messages: "rewritten"),
        rephrasers={"instruction": ByInstruction(), "model": ByModel(), **more},
    )
    return Rephrase().respond(config or RephraseConfig(), context)


class Upper:
    name = "upper"

    def rephrase(self, messages, instruction, complete):
        return [Message(m.role, m.content.upper()) for m in messages]


class Broken:
    name = "broken"

    def __init__(self, error):
        self.error = error

    def rephrase(self, messages, instruction, complete):
        raise self.error


def test_rephrase_stops_the_forward_pass():
    assert Rephrase().compile(RephraseConfig()) == STOP


def test_the_instruction_becomes_the_system_prompt():
    assert respond() == Retry((Message("system", INSTRUCTION), USER))


def test_the_instruction_joins_a_system_prompt_that_exists():
    config = RephraseConfig(instruction="If you do not know, say so.")
    answer = respond(config, (Message("system", "You are Ann."), USER))
    assert answer == Retry((Message("system", "You are Ann.\n\nIf you do not know, say so."), USER))


def test_the_model_rewrites_the_last_user_message_only():
    asked = []

    def complete(messages):
        asked.append(tuple(messages))
        return "  What can be known about tomorrow?\n"

    before = (Message("user", "Hi"), Message("assistant", "Hello"))
    answer = respond(RephraseConfig(by="model"), (*before, USER), complete=complete)
    assert answer == Retry((*before, Message("user", "What can be known about tomorrow?")))
    ((task, question),) = asked
    assert INSTRUCTION in task.content
    assert question == USER


def test_a_plugins_rephraser_is_used_by_name():
    assert respond(RephraseConfig(by="upper"), upper=Upper()) == Retry(
        (Message("user", USER.content.upper()),)
    )


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_are_bounded(attempts):
    config = RephraseConfig(max_attempts=attempts, otherwise="escalate")
    assert isinstance(respond(config, attempt=attempts - 1), Retry)
    assert respond(config, attempt=attempts) == Otherwise("escalate")


def test_rephrasing_that_changes_nothing_is_not_tried_again():
    config = RephraseConfig(max_attempts=5)
    assert respond(config, (Message("system", INSTRUCTION), USER), attempt=1) == Otherwise("block")
    assert respond(RephraseConfig(by="model"), complete=lambda messages: " ") == Otherwise("block")
    assert respond(RephraseConfig(by="model"), (Message("system", "s"),)) == Otherwise("block")


def test_a_rephraser_that_raises_is_an_evaluation_error_of_the_plugin():
    with pytest.raises(EvaluationError, match="`broken` failed: ZeroDivisionError"):
        respond(RephraseConfig(by="broken"), broken=Broken(ZeroDivisionError()))


def test_a_full_queue_stays_a_full_queue():
    with pytest.raises(QueueFull):
        respond(RephraseConfig(by="broken"), broken=Broken(QueueFull("full")))


def test_an_unknown_rephraser_is_found_when_the_file_is_loaded():
    info = Plugins().action_infos()["rephrase"]
    with pytest.raises(ValidationError, match="unknown rephraser `modle`; did you mean `model`"):
        info.validate({"by": "modle"})


@pytest.mark.parametrize("config", [{"max_attempts": 0}, {"instruction": " "}, {"otherwise": "steer"}])
def test_values_out_of_range_are_errors(config):
    with pytest.raises(ValidationError):
        RephraseConfig.model_validate(config)
