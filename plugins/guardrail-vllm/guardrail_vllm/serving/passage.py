"""One prompt on its way through: decided, written down, then answered by the model or in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from vllm.exceptions import VLLMValidationError

from guardrail.engines import Span
from guardrail.errors import PromptError, outline
from guardrail.pipeline.admission import unread
from guardrail.pipeline.evaluator import timed_out
from guardrail.pipeline.stream import BREAK
from guardrail.plugins.protocols import Answer
from guardrail.policy.decide import failure
from guardrail.serve.verdict import Verdict
from guardrail.types import Decision, Position, Reply, Timing
from guardrail_vllm.attempt import Attempt, is_request_error
from guardrail_vllm.serving.evaluation import Evaluation
from guardrail_vllm.serving.outputs import Replies, ended, refusal, without
from guardrail_vllm.serving.prompts import Incoming
from guardrail_vllm.worker.asked import Asked
from guardrail_vllm.worker.reports import Decided

if TYPE_CHECKING:
    from guardrail_vllm.serving.door import Door

T = TypeVar("T")


class Passage:
    """`prompt`, `parameters`, `name` and `options` are the arguments of the engine client's `generate`."""

    def __init__(
        self, door: Door, asked: Incoming, prompt: Any, parameters: Any, name: str, options: dict[str, Any]
    ) -> None:
        self._door, self._asked, self._exchange = door, asked, asked.exchange
        self._driver, self._plan = door.guard.driver, asked.exchange.policies.plan
        self._prompt, self._parameters, self._name, self._options = prompt, parameters, name, options

    async def outputs(self) -> AsyncIterator[Any]:
        """vLLM's outputs, or one with what is said in the model's place."""
        with self._driver.recorder.closing([self._exchange]):
            while (answer := await self._refused()) is None:
                if self._attempt is not None:
                    async with aclosing(self._answered(self._attempt)) as outputs:
                        async for output in outputs:
                            yield output
                    return
            reply = await self._finished(answer)
            yield refusal(self._name, reply.text, self._prompt.get("prompt_token_ids"), self._parameters)

    async def _refused(self) -> Answer | None:
        """What is said in the model's place. None: the model does (`_attempt`), or another round is due."""
        self._attempt = attempt = await self._decided()
        if not self._exchange.decisions[-1].stops:
            return None
        if attempt is not None:
            await attempt.leave()
            self._attempt = None
        answer = await self._blocking(self._driver.answer, self._exchange, None)
        if answer is None:
            await self._render_again()
        return answer

    async def _render_again(self) -> None:
        """An action has changed the messages, or a person has lifted a policy."""
        if self._asked.chat is None or self._exchange.messages == self._exchange.request.messages:
            return
        turns = [message.as_dict() for message in self._exchange.messages]
        self._prompt = await self._asked.chat.render(turns)
        self._exchange.prompt_tokens = len(self._prompt.get("prompt_token_ids") or ())

    # --- the decision ---------------------------------------------------------------------------------

    async def _decided(self) -> Attempt | None:
        """The generation, decided on; None if there is none, because the prompt cannot be read."""
        if (decision := unread(self._exchange, self._unreadable())) is not None:
            await self._note(decision, Timing())
            return None
        limit_s = self._plan.live(self._exchange.facts).timeout_s
        self._evaluation = await self._evaluated(limit_s)
        self._spans = await self._found()
        attempt = self._begun()
        try:
            decision, timing = await self._verdict(attempt, limit_s)
            await self._note(decision, timing)
        except BaseException:
            await attempt.leave()
            raise
        if decision.stops or self._evaluation.done(decision):
            return attempt
        # a worker knows the plan, and no plugin or certificate that has a say as well
        await attempt.leave()
        return self._begun(forced=tuple(one.policy for one in decision.steering))

    def _unreadable(self) -> str | None:
        """Why the prompt cannot be read as it is. Raises vLLM's validation error."""
        if (known := self._asked.unreadable) is not None or (chat := self._asked.chat) is None:
            return known
        try:
            return self._door.guard.served.left_out(self._exchange.messages, self._exchange.request.tools)
        except PromptError as error:
            if chat.changed:
                # the model's own template refuses what one of the request's has taken
                return str(error)
            raise VLLMValidationError(str(error)) from error

    async def _evaluated(self, limit_s: float) -> Evaluation:
        make = partial(Evaluation, self._door, self._exchange, limit_s)
        # scorers are slow
        return await self._blocking(make) if self._plan.live(self._exchange.facts).scorers else make()

    def _begun(self, forced: tuple[str, ...] | None = None) -> Attempt:
        asked = Asked(
            key="",
            plan=self._plan,
            facts=self._evaluation.facts,
            forced=forced,
            spans=self._spans,
            end=self._end,
        )
        arguments = partial(self._door.arguments, asked, self._parameters.n)
        return Attempt(self._door.verdicts, partial(self._generate, asked.reads_means), arguments)

    async def _found(self) -> Mapping[Position, Sequence[Span]]:
        """The tokens of the prompt that means are taken over. Raises vLLM's validation error."""
        if not (positions := self._plan.positions - {"last"}):
            return {}
        ids, exchange = self._prompt.get("prompt_token_ids") or (), self._exchange
        find = partial(self._door.guard.served.spans, ids, exchange.request, exchange.messages, positions)
        try:
            return await self._blocking(find)
        except PromptError as error:
            raise VLLMValidationError(str(error)) from error

    def _generate(self, whole: bool, key: str, arguments: dict[str, Any]) -> Any:
        parameters = self._parameters.clone()
        parameters.skip_reading_prefix_cache = whole or parameters.skip_reading_prefix_cache
        if self._end is not None:
            parameters.stop_token_ids = [*(parameters.stop_token_ids or ()), self._end]
        parameters.extra_args = {**(parameters.extra_args or {}), **arguments}
        rounds = len(self._exchange.decisions)
        name = f"{self._name}-{rounds}" if rounds else self._name
        return self._door.inner(self._salted(key), parameters, name, **self._options)

    @property
    def _end(self) -> int | None:
        """What ends a reply that goes on after the model's own end."""
        return self._door.guard.served.spare if self._parameters.ignore_eos else None

    def _salted(self, key: str) -> Any:
        """The prompt. What steering has changed must not be found again in the prefix cache."""
        steers = self._plan.enforced_steering or any(rule.steering for rule in self._plan.reply_rules)
        if not steers or self._door.separates:
            return self._prompt
        return {**self._prompt, "cache_salt": f"{self._prompt.get('cache_salt') or ''}{key}"}

    async def _verdict(self, attempt: Attempt, limit_s: float) -> tuple[Decision, Timing]:
        late = timed_out(self._plan, self._exchange.facts, limit_s)
        try:
            # failing open needs the reply, which comes from this very pass
            told = await attempt.decided(limit_s if late.stops else inf)
            if told is None:
                return late, Timing()
            decide = partial(self._evaluation.decided, told, attempt.word.rechecked)
            slow = self._exchange.policies.plugins.reviews
            return await self._blocking(decide) if slow else decide(), _timing(attempt, told)
        except Exception as error:
            decision = failure(self._plan, self._exchange.facts, outline(error))
            if is_request_error(error) or not decision.stops:
                raise
            return decision, Timing()

    async def _note(self, decision: Decision, timing: Timing) -> None:
        """Write the decision down, before anything of the reply is handed out."""
        exchange = self._exchange
        exchange.decided(decision, timing)
        await self._blocking(self._driver.recorder.decided, exchange)
        verdict = Verdict(exchange.id, tuple(exchange.decisions), exchange.total(), lifted=exchange.lifted)
        self._asked.call.verdicts[exchange.id] = verdict

    # --- the answer -----------------------------------------------------------------------------------

    async def _answered(self, attempt: Attempt) -> AsyncIterator[Any]:
        """The model's reply."""
        replies = Replies(self._parameters)
        try:
            async with aclosing(attempt.outputs()) as outputs:
                async for output in outputs:
                    replies.take(output)
                    yield await self._last(output, replies, attempt) if output.finished else output
        finally:
            await attempt.leave()

    async def _last(self, output: Any, replies: Replies, attempt: Attempt) -> Any:
        """The last output, with its outcome written down."""
        decision = self._exchange.decisions[-1]
        more = 0
        if decision.steering or self._evaluation.follows:
            told = await attempt.ended()
            more = replies.keep(told.kept)
            completion = self._evaluation.completion(decision, replies, told)
        else:
            completion = replies.completion(decision, 0)
        self._exchange.completion = completion
        if (stopped := completion.stopped) is None:
            await self._finished(Answer(completion.text))
            return output
        shown = self._shown(output, more)
        replies.texts[0] = replies.texts[0].removesuffix(shown)
        return await self._stopped(without(output, more, shown), stopped, replies)

    def _shown(self, output: Any, last: int) -> str:
        """The text that the `last` tokens, with which a worker ended a reply, have in an output."""
        if not last or not self._parameters.include_stop_str_in_output:
            return ""
        decode, special = self._door.guard.tokenizer.decode, self._parameters.skip_special_tokens
        return str(decode(output.outputs[0].token_ids[-last:], skip_special_tokens=special))

    async def _stopped(self, output: Any, decision: Decision, replies: Replies) -> Any:
        """The last output of a reply that a policy has stopped."""
        respond, said = self._driver.responder.stopped, replies.texts[0]
        complete = self._driver.completing(self._exchange)
        answer = await self._blocking(respond, self._exchange, decision, said, complete)
        if not replies.pieces:
            return ended(output, whole=(await self._finished(answer)).text)
        before = f"{said}{BREAK}" if said else ""
        reply = await self._finished(replace(answer, text=before + answer.text))
        return ended(output, more=reply.text.removeprefix(said))

    async def _finished(self, answer: Answer) -> Reply:
        reply = await self._blocking(self._driver.finish, self._exchange, answer)
        self._asked.call.verdicts[self._exchange.id] = Verdict.of(reply)
        return reply

    async def _blocking(self, work: Callable[..., T], *arguments: Any) -> T:
        return await self._door.blocking(partial(work, *arguments), self._exchange.cancellation)


def _timing(attempt: Attempt, told: Decided) -> Timing:
    guard_ms = told.guard_s * 1e3
    prefill_ms = max(0.0, (told.at - told.began) * 1e3 - guard_ms)
    return Timing(guard=guard_ms, prefill=prefill_ms, queue=max(0.0, (told.began - attempt.sent) * 1e3))
