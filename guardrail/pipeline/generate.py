"""`guard.generate`: `model.generate` with decisions. There are no messages here, so nothing is rephrased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from guardrail.engines import Completion, Event, Prompt
from guardrail.errors import ConfigError, PromptError
from guardrail.pipeline.admission import Admission
from guardrail.pipeline.evaluator import Evaluation
from guardrail.pipeline.exchange import Rounds
from guardrail.pipeline.request import Request, request
from guardrail.pipeline.respond import Responder
from guardrail.pipeline.worker import Job
from guardrail.plugins.protocols import Answer
from guardrail.policy.loading import ActivePolicies
from guardrail.types import Decision, Message, Timing

Decisions: TypeAlias = tuple[Decision, ...]
Responses: TypeAlias = tuple[Decision | None, ...]

_last: ContextVar[tuple[Decisions, Responses]] = ContextVar("guardrail_last_decisions", default=((), ()))


def last_decisions() -> Decisions:
    """The decisions of the last `generate` in this thread or task."""
    return _last.get()[0]


def last_responses() -> Responses:
    """The decisions on its replies, None where no response policy followed one."""
    return _last.get()[1]


class GuardedGenerate:
    """One call of `guard.generate`."""

    def __init__(
        self,
        rounds: Rounds,
        loaded: ActivePolicies,
        responder: Responder,
        tags: Iterable[str] = (),
        conversation: str | None = None,
    ) -> None:
        self.rounds, self.loaded, self.responder = rounds, loaded, responder
        self.tags, self.conversation = tags, conversation
        self.engine: Any = rounds.engine
        if not hasattr(self.engine, "generate"):
            raise ConfigError("this engine has no `generate`; use `chat`")

    def run(self, kwargs: Mapping[str, Any]) -> Any:
        """What `model.generate(**kwargs)` returns, with the rows that were stopped replaced."""
        from guardrail.engines.transformers.outputs import assemble
        from guardrail.engines.transformers.unsupported import prompt_ids

        ids = prompt_ids(kwargs)
        requests = self._requests(ids, kwargs.get("attention_mask"))
        evaluation = Evaluation(self.loaded, requests, self.rounds.conversations)

        def generate(job: Job[Event, Any]) -> Any:
            evaluation.start(job)
            return self.engine.generate(self.loaded.plan, evaluation, job.emit, kwargs)

        job = self.rounds.worker.submit(generate)
        admission = Admission(requests, [Prompt(()) for _ in requests])
        decisions, timing = self.rounds.decided(self.loaded, admission, (job, evaluation))
        with self.rounds.closing(self.loaded, requests):
            answers = self._answers(requests, decisions)
            generated = None if all(decision.stops for decision in decisions) else job.result()
            completions = self._completions(generated, ids.shape[1])
            answers |= self._stopped(requests, completions)
            output = assemble(self.engine, kwargs, generated, {r: a.text for r, a in answers.items()})
            for row, item in enumerate(requests):
                self._finish(item, answers.get(row), completions.get(row), timing)
        final = tuple(item.decisions[-1] for item in requests)
        responses = tuple(
            c.reply_decision if (c := completions.get(row)) else None for row in range(len(requests))
        )
        _last.set((final, responses))
        if not _is_tensor(output):
            output.decisions, output.responses = final, responses
        return output

    def _requests(self, ids: Any, mask: Any) -> list[Request]:
        ids = ids.cpu()  # at once: a device is waited for at each copy
        if mask is None:
            return [self._request(row) for row in ids.tolist()]
        masks = mask.cpu()[:, -ids.shape[1] :].bool()
        return [self._request(row[held].tolist()) for row, held in zip(ids, masks, strict=True)]

    def _request(self, ids: list[int]) -> Request:
        from guardrail.engines.transformers.ends import EMPTY

        if not ids:
            raise PromptError(EMPTY)
        if len(ids) > self.engine.max_tokens:
            limit = self.engine.max_tokens
            raise PromptError(f"a prompt has {len(ids)} tokens, {len(ids) - limit} more than the model takes")
        message = Message("user", self.engine.tokenizer.decode(ids) or " ")
        item = request("generate", [message], self.tags, self.conversation, whole=False)
        item.prompt_tokens = len(ids)
        if any(rule.action == "rephrase" for rule in self.loaded.plan.rules):
            item.warn("generate has no messages to rephrase: `otherwise` applies")
        if self.loaded.plan.drifts and not item.named:
            item.warn(
                "generate has no messages: give `conversation`, or policies about conversations see nothing"
            )
        return item

    def _answers(self, requests: list[Request], decisions: list[Decision]) -> dict[int, Answer]:
        stopped = [row for row, decision in enumerate(decisions) if decision.stops]
        found = {row: self.responder.respond(requests[row], decisions[row]) for row in stopped}
        return {row: answer for row, answer in found.items() if answer is not None}

    def _stopped(self, requests: list[Request], completions: Mapping[int, Completion]) -> dict[int, Answer]:
        """The answers in place of replies that response policies stopped."""
        return {
            row: self.responder.stopped(requests[row], completion.reply_decision, completion.text)
            for row, completion in completions.items()
            if completion.reply_decision is not None and completion.reply_decision.stops
        }

    def _completions(self, generated: Any, width: int) -> dict[int, Completion]:
        if generated is None:
            return {}
        return {row: self.engine.completion(generated, row, width) for row in generated.kept}

    def _finish(
        self, item: Request, answer: Answer | None, completion: Completion | None, timing: Timing
    ) -> None:
        if answer is not None:
            self.rounds.answer(self.loaded, item, answer, timing, completion)
        else:
            text = completion.text if completion else ""
            self.rounds.finish(self.loaded, item, text, timing, completion)


def _is_tensor(output: object) -> bool:
    import torch

    return isinstance(output, torch.Tensor)
