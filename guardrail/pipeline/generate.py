"""`guard.generate`: `model.generate` with decisions. There are no messages here, so nothing is rephrased."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardrail.engines import Completion, Emit, Evaluator, Generated, GeneratingEngine, Prompt
from guardrail.errors import ConfigError, PromptError
from guardrail.pipeline.admission import Admission, unread
from guardrail.pipeline.conversations import Told
from guardrail.pipeline.driver import Driver, Round
from guardrail.pipeline.exchange import Exchange
from guardrail.pipeline.heard import Heard
from guardrail.pipeline.options import check_generate
from guardrail.pipeline.request import request, tags_of
from guardrail.plugins.protocols import Answer
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Message

if TYPE_CHECKING:
    from guardrail.policy.loading import ActivePolicies


@dataclass(frozen=True, slots=True)
class LastDecisions:
    """What was decided in one call, for each prompt; None for a reply that no response policy followed."""

    decisions: tuple[Decision, ...] = ()
    reply_decisions: tuple[Decision | None, ...] = ()


_last: ContextVar[LastDecisions] = ContextVar("guardrail_last_decisions")


def last_decisions() -> LastDecisions:
    """The decisions of the last `generate` in this thread or task."""
    return _last.get(LastDecisions())


def generate(
    driver: Driver,
    policies: ActivePolicies,
    arguments: Mapping[str, Any],
    tags: Iterable[str] = (),
    conversation: str | None = None,
) -> Any:
    """What `model.generate(**arguments)` returns, with the rows that were stopped replaced.

    Raises ConfigError if the engine has no `generate`, PromptError, UnsupportedGeneration.
    """
    engine = driver.engine
    if not isinstance(engine, GeneratingEngine):
        raise ConfigError("this engine has no `generate`; use `chat`")
    check_generate(arguments)
    prompts, tags = engine.prompts(arguments), tags_of(tags)
    batch = [_exchange(engine, policies, prompt, tags, conversation) for prompt in prompts]

    def ask(_: Sequence[Prompt], plan: Plan, evaluator: Evaluator, emit: Emit) -> Generated:
        return engine.generate(plan, evaluator, emit, arguments)

    heard = Heard(arguments["streamer"]) if arguments.get("streamer") is not None else None
    arguments = arguments if heard is None else {**arguments, "streamer": heard}
    with driver.recorder.closing(batch):
        names = [*engine.unread(arguments), *(engine.hidden(arguments) if _has_scorers(batch) else ())]
        with heard.recording() if heard else nullcontext():
            round = driver.decide(_admission(batch, prompts, names), ask)
        with _left_off(driver, round, prompts, heard):
            generated = round.result()
        completions = generated.completions if generated else {}
        answers = [_answer(driver, exchange, completions.get(i)) for i, exchange in enumerate(batch)]
        stopped = {i: answers[i].text for i, exchange in enumerate(batch) if exchange.final.stops}
        output = engine.assemble(arguments, generated, stopped)
        replies = [driver.finish(exchange, answer) for exchange, answer in zip(batch, answers, strict=True)]
    decisions, reply_decisions = zip(*((r.decision, r.reply_decision) for r in replies), strict=True)
    return _with_decisions(output, LastDecisions(decisions, reply_decisions))


def _admission(batch: Sequence[Exchange], prompts: Sequence[Prompt], names: Sequence[str]) -> Admission:
    """All prompts, or none if policies stop what they cannot read: it belongs to every row of the call."""
    reason = f"`{names[0]}` cannot be read" if names else None
    stops = [decision for exchange in batch if (decision := unread(exchange, reason)) is not None]
    return Admission(batch, [stops[0]] * len(batch) if stops else prompts)


@contextmanager
def _left_off(
    driver: Driver, round: Round[Generated], prompts: Sequence[Prompt], heard: Heard | None
) -> Generator[None]:
    """If the reply ends in the middle: what was handed out of it is a turn of the conversation as well."""
    try:
        yield
    except BaseException:
        if heard is not None and heard.ids and not (round.job and round.job.succeeded):
            exchange = round.admission.batch[0]
            told = Told(prompts[0].ids, tuple(heard.ids))
            driver.conversations.owe(exchange.policies.plan, exchange.request.talk, told)
        raise


def _has_scorers(batch: Sequence[Exchange]) -> bool:
    return any(exchange.policies.plan.live(exchange.facts).scorers for exchange in batch)


def _exchange(
    engine: GeneratingEngine,
    policies: ActivePolicies,
    prompt: Prompt,
    tags: Iterable[str],
    conversation: str | None,
) -> Exchange:
    if (excess := len(prompt.ids) - engine.max_tokens) > 0:
        raise PromptError(f"a prompt has {len(prompt.ids)} tokens, {excess} more than the model takes")
    message = Message("user", engine.decode(prompt.ids) or " ")
    exchange = Exchange.of(request("generate", [message], tags, conversation), policies)
    exchange.prompt_tokens = len(prompt.ids)
    if any(rule.action == "rephrase" for rule in policies.plan.rules):
        exchange.warn("generate has no messages to rephrase: `otherwise` applies")
    if policies.plan.drifts and not exchange.request.named:
        exchange.warn(
            "generate has no messages: give `conversation`, or policies about conversations see nothing"
        )
    return exchange


def _answer(driver: Driver, exchange: Exchange, completion: Completion | None) -> Answer:
    answer = driver.answer(exchange, completion)
    assert answer is not None, "a prompt without messages is never evaluated again"
    return answer


def _with_decisions(output: Any, found: LastDecisions) -> Any:
    """The output, with the decisions on it unless it is a bare tensor."""
    import torch

    _last.set(found)
    if not isinstance(output, torch.Tensor):
        output.decisions, output.reply_decisions = found.decisions, found.reply_decisions
    return output
