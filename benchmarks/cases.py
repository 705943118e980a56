"""Cases for the engine alone: a guarded prompt against the same prompt on the bare copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import torch

from benchmarks.subjects import Subject
from guardrail.bench.cases import Case, greedy, plainly, prefilling
from guardrail.bench.plans import PlanEvaluator, allowing, blocking, following, steering
from guardrail.engines import Event, Prompt, Scored
from guardrail.engines.transformers.engine import TransformersEngine
from guardrail.engines.transformers.hooks import Hooked
from guardrail.engines.transformers.output import GuardedOutput
from guardrail.policy.plan import Plan


def engine_cases(subject: Subject) -> Iterator[Case]:
    """Every case of one model, each made when the one before was measured. Ends with a closed engine."""
    with closing(TransformersEngine(subject.model, subject.tokenizer, "builtin:plain")) as engine:
        for case in (first_token, blocked, checked, allow, followed, steer_one, steer_all):
            yield case(subject, engine)
    by_hooks_alone = TransformersEngine(
        subject.model, subject.tokenizer, "builtin:plain", prefill=Hooked, decode=Hooked
    )
    with closing(by_hooks_alone) as engine:
        for case in (first_token, allow, steer_one):
            yield by_hooks(case(subject, engine))
    yield closed(subject)


def by_hooks(case: Case) -> Case:
    """The same with the engine `transformers-hooks`."""
    return replace(case, name=f"{case.name}, by hooks alone")


def allow(subject: Subject, engine: TransformersEngine) -> Case:
    """Read, decide, go on: a whole reply."""
    plan = allowing(subject.d_model, subject.layers, subject.policies)
    return Case(
        name="allow",
        guarded=generating(subject, engine, plan, subject.new_tokens),
        bare=plainly(subject.bare, greedy(subject.inputs, subject.new_tokens)),
        holds=lambda result, expected: torch.equal(result.output, expected),
    )


def followed(subject: Subject, engine: TransformersEngine) -> Case:
    """A whole reply whose every token is read, and looked at."""
    plan = following(subject.d_model, subject.layers, subject.policies)

    def holds(result: GuardedOutput, expected: torch.Tensor) -> bool:
        decision = result.replies[0].decision
        assert decision is not None
        return decision.status == "evaluated" and torch.equal(result.output, expected)

    return Case(
        name="response stage, every token",
        guarded=generating(subject, engine, plan, subject.new_tokens),
        bare=plainly(subject.bare, greedy(subject.inputs, subject.new_tokens)),
        holds=holds,
    )


def first_token(subject: Subject, engine: TransformersEngine) -> Case:
    """Read, decide, go on: up to the first token."""
    plan = allowing(subject.d_model, subject.layers, subject.policies)
    return Case(
        name="allow, first token",
        guarded=generating(subject, engine, plan, 1),
        bare=plainly(subject.bare, greedy(subject.inputs, 1)),
        holds=lambda result, expected: torch.equal(result.output, expected),
    )


def blocked(subject: Subject, engine: TransformersEngine) -> Case:
    """Stopped at the middle layer, against the bare model's prefill alone."""
    plan = blocking(subject.d_model, subject.layers, subject.policies)
    return Case(
        name="block at the middle",
        guarded=generating(subject, engine, plan, subject.new_tokens),
        bare=prefilling(subject.bare, subject.inputs),
        holds=lambda result, expected: result.decisions[0].action == "block" and not result.kept,
    )


def checked(subject: Subject, engine: TransformersEngine) -> Case:
    """Decide only, against the bare model's prefill alone."""
    plan = allowing(subject.d_model, subject.layers, subject.policies)
    prompt = Prompt(tuple(subject.inputs["input_ids"][0].tolist()))

    def check() -> Scored:
        events: list[Event] = []
        engine.check([prompt], plan, PlanEvaluator(plan), events.append)
        assert isinstance(events[0], Scored)
        return events[0]

    return Case(
        name="check",
        guarded=check,
        bare=prefilling(subject.bare, subject.inputs),
        holds=lambda result, expected: result.decisions[0].action == "allow",
    )


def steer_one(subject: Subject, engine: TransformersEngine) -> Case:
    """Steered at the layer that is read last, in every forward pass."""
    return _steer(subject, engine, "steer one layer", subject.layers[-1:])


def steer_all(subject: Subject, engine: TransformersEngine) -> Case:
    """Steered at every layer; those below the last one read make the last prompt position run again."""
    return _steer(subject, engine, "steer all layers", tuple(range(1, subject.depth + 1)))


def _steer(subject: Subject, engine: TransformersEngine, name: str, layers: tuple[int, ...]) -> Case:
    plan = steering(subject.d_model, subject.layers, subject.policies, layers)

    def holds(result: GuardedOutput, expected: torch.Tensor) -> bool:
        return result.passes == {0: subject.new_tokens} and result.output.shape == expected.shape

    return Case(
        name=name,
        guarded=generating(subject, engine, plan, subject.new_tokens),
        bare=plainly(subject.bare, greedy(subject.inputs, subject.new_tokens)),
        holds=holds,
    )


def closed(subject: Subject) -> Case:
    """After `close`: the model is its own again."""
    return Case(
        name="after close",
        guarded=plainly(subject.model, greedy(subject.inputs, subject.new_tokens)),
        bare=plainly(subject.bare, greedy(subject.inputs, subject.new_tokens)),
        holds=torch.equal,
    )


def generating(
    subject: Subject, engine: TransformersEngine, plan: Plan, tokens: int
) -> Callable[[], GuardedOutput]:
    """`engine.generate`, greedy."""
    arguments, evaluator = greedy(subject.inputs, tokens), PlanEvaluator(plan)
    return lambda: engine.generate(plan, evaluator, ignore, arguments)


def ignore(event: Event) -> None:
    """Nobody listens."""
