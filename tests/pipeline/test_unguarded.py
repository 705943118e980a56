"""The model without a policy: no decision stops it, whatever its engine asks."""

from guardrail.engines import Completion, Prompt
from guardrail.pipeline.job import Job
from guardrail.pipeline.unguarded import unguarded
from guardrail.policy.decide_reply import Observed
from guardrail.types import Decision, Message

FREE = Decision(status="not_evaluated")


class Asking:
    """An engine that asks about the prompt and about the reply, although the plan has no rules."""

    def render(self, messages, tools=(), positions=()):
        self.messages = messages
        return Prompt((1, 2))

    def reply(self, prompts, plan, evaluator, sampling, emit):
        assert not evaluator.cancelled
        self.plan, self.watched = plan, evaluator.watch(0)
        decision, said = evaluator.decide(0, []), evaluator.respond(0, Observed(tokens=1))
        self.decisions = (decision, evaluator.recheck(0, decision, [], 1), said)
        return [Completion(decision=decision, text="free", new_tokens=1, steered_passes=0)]


def test_nothing_is_evaluated_and_nothing_is_stopped():
    engine, talk = Asking(), (Message("user", "Hello"),)
    assert unguarded(engine, talk, Job(lambda job: "")) == "free"
    assert engine.messages == talk
    assert (engine.plan.rules, engine.plan.probes, engine.watched.modes) == ((), (), ())
    assert engine.decisions == (FREE, FREE, Decision(status="not_evaluated", stage="response"))
