"""The guardrail in real runs; the agent's model counts its calls and always says the same."""

import pytest

pytest.importorskip("agents", reason="needs openai-agents: `make test-clients` installs it")

from agents import Agent, InputGuardrailTripwireTriggered, Model, ModelResponse, Runner, Usage
from guardrail_openai_agents import guardrail
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from guardrail import Guard, GuardClosed, PromptError
from guardrail.demo.prompts import TOUR

STOPS = {stop.expected: stop.messages for stop in TOUR}


class Parrot(Model):
    """Says `Fine.`; remembers how often."""

    calls = 0

    async def get_response(self, *args, **kwargs):
        self.calls += 1
        text = ResponseOutputText(type="output_text", text="Fine.", annotations=[])
        message = ResponseOutputMessage(
            id="1", type="message", role="assistant", status="completed", content=[text]
        )
        return ModelResponse(output=[message], usage=Usage(), response_id=None)

    def stream_response(self, *args, **kwargs):
        raise NotImplementedError


@pytest.fixture(scope="module")
def guard():
    with Guard.from_pretrained("demo") as guard:
        yield guard


@pytest.fixture(autouse=True)
def _no_traces():
    from agents import set_tracing_disabled

    set_tracing_disabled(True)


def agent(guard, **fields):
    return Agent("test", model=Parrot(), input_guardrails=[guardrail(guard)], **fields)


async def tripped(made, given):
    """The ruling on an input that trips, before the model was called."""
    with pytest.raises(InputGuardrailTripwireTriggered) as caught:
        await Runner.run(made, given)
    assert made.model.calls == 0
    return caught.value.guardrail_result.output.output_info


async def test_what_passes_is_answered_and_the_ruling_is_there(guard):
    made = agent(guard)
    result = await Runner.run(made, STOPS["allow"])
    (found,) = result.input_guardrail_results
    assert (result.final_output, made.model.calls) == ("Fine.", 1)
    assert (found.output.output_info.passes, found.output.output_info.decision.status) == (True, "evaluated")


@pytest.mark.parametrize("action", STOPS.keys() - {"allow"})
async def test_what_does_not_pass_trips_before_the_model_runs(guard, action):
    ruling = await tripped(agent(guard), STOPS[action])
    assert (ruling.decision.action, ruling.passes) == (action, False)
    assert ruling.text
    assert (ruling.ticket_id is not None) is (action == "escalate")


async def test_the_agents_instructions_are_read(guard):
    system, user = STOPS["block"]
    await tripped(agent(guard, instructions=system["content"]), user["content"])
    await tripped(agent(guard, instructions=lambda context, agent: system["content"]), user["content"])


async def test_an_image_trips(guard):
    image = {"type": "input_image", "detail": "auto", "image_url": "https://x.org/a.png"}
    ruling = await tripped(agent(guard), [{"role": "user", "content": [image]}])
    assert ruling.decision.status == "not_evaluated"


async def test_without_a_verdict_the_run_ends(guard):
    with Guard.from_pretrained("demo") as closed:
        pass
    for reader, given, error in [
        (closed, "Hello", GuardClosed),
        (guard, "  ", PromptError),
        (guard, [{"type": "item_reference", "id": "x"}], PromptError),
    ]:
        made = agent(reader)
        with pytest.raises(error):
            await Runner.run(made, given)
        assert made.model.calls == 0
