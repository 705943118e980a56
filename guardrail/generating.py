"""`guard.generate`: `model.generate` with decisions. There are no messages here, so nothing is rephrased."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from guardrail.admission import Admission
from guardrail.engines import Event, Prompt
from guardrail.errors import ConfigError
from guardrail.evaluation import Evaluation
from guardrail.loading import Loaded
from guardrail.requests import Request
from guardrail.responding import Responder
from guardrail.rounds import Rounds
from guardrail.types import Decision, Facts, Message, Timing
from guardrail.worker import Job

_last: ContextVar[tuple[Decision, ...]] = ContextVar("guardrail_last_decisions", default=())


def last_decisions() -> tuple[Decision, ...]:
    """The decisions of the last `generate` in this thread or task."""
    return _last.get()


class GuardedGenerate:
    """One call of `guard.generate`."""

    def __init__(self, rounds: Rounds, loaded: Loaded, responder: Responder) -> None:
        self.rounds, self.loaded, self.responder = rounds, loaded, responder
        self.engine: Any = rounds.engine
        if not hasattr(self.engine, "generate"):
            raise ConfigError("this engine has no `generate`; use `chat`")

    def run(self, kwargs: Mapping[str, Any]) -> Any:
        """What `model.generate(**kwargs)` returns, with the rows that were stopped replaced."""
        from guardrail.engines.outputs import assemble

        requests = self._requests(kwargs)
        evaluation = Evaluation(self.loaded, requests)

        def generate(job: Job[Event, Any]) -> Any:
            evaluation.start(job)
            return self.engine.generate(self.loaded.plan, evaluation, job.emit, kwargs)

        job = self.rounds.worker.submit(generate)
        admission = Admission(requests, [Prompt(()) for _ in requests])
        decisions, timing = self.rounds.decided(self.loaded, admission, (job, evaluation))
        with self.rounds.closing(self.loaded, requests):
            answers = self._answers(requests, decisions)
            generated = None if all(decision.stops for decision in decisions) else job.result()
            output = assemble(self.engine, kwargs, generated, answers)
        self._finish(requests, answers, timing)
        final = tuple(item.decisions[-1] for item in requests)
        _last.set(final)
        if not _is_tensor(output):
            output.decisions = final
        return output

    def _requests(self, kwargs: Mapping[str, Any]) -> list[Request]:
        from guardrail.engines.unsupported import prompt_ids

        ids, mask = prompt_ids(kwargs), kwargs.get("attention_mask")
        rows = [row if mask is None else row[mask[i][-len(row) :].bool()] for i, row in enumerate(ids)]
        return [self._request(row.tolist()) for row in rows]

    def _request(self, ids: list[int]) -> Request:
        messages = (Message("user", self.engine.tokenizer.decode(ids)),)
        item = Request(kind="generate", original=messages, messages=messages, facts=Facts())
        item.prompt_tokens = len(ids)
        if any(rule.action == "rephrase" for rule in self.loaded.plan.rules):
            item.warn("generate has no messages to rephrase: `otherwise` applies")
        return item

    def _answers(self, requests: list[Request], decisions: list[Decision]) -> dict[int, str]:
        answers: dict[int, str] = {}
        for row, (item, decision) in enumerate(zip(requests, decisions, strict=True)):
            if decision.stops and (answer := self.responder.respond(item, decision)) is not None:
                item.ticket_id = answer.ticket.id if answer.ticket else None
                answers[row] = answer.text
        return answers

    def _finish(self, requests: list[Request], answers: Mapping[int, str], timing: Timing) -> None:
        for row, item in enumerate(requests):
            self.rounds.finish(self.loaded, item, answers.get(row, ""), timing, None)


def _is_tensor(output: object) -> bool:
    import torch

    return isinstance(output, torch.Tensor)
