import pytest
from pydantic import ValidationError

from guardrail.actions.block import REFUSAL, Block, BlockConfig
from guardrail.plugins.protocols import ActionContext, Answer
from guardrail.testing import decision
from guardrail.types import STOP, Message


def context(message=None):
    return ActionContext(
        decision=decision(),
        messages=(Message("user", "Hi"),),
        policy="test",
        message=message,
        attempt=0,
        complete=lambda messages: "",
    )


def test_block_stops_the_forward_pass():
    assert Block().compile(BlockConfig()) == STOP


@pytest.mark.parametrize(
    ("own", "policys", "expected"),
    [(None, None, REFUSAL), (None, "Not here.", "Not here."), ("No.", "Not here.", "No.")],
)
def test_the_refusal_is_the_actions_then_the_policys_then_the_default(own, policys, expected):
    assert Block().respond(BlockConfig(message=own), context(policys)) == Answer(expected)


def test_an_unknown_key_is_an_error():
    with pytest.raises(ValidationError, match="Extra inputs"):
        BlockConfig.model_validate({"mesage": "No."})
