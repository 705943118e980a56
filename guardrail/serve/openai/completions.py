"""`/v1/completions`: raw text, which the model continues without its chat template.

The guard reads it as it reads any prompt, but thresholds are made for prompts that the template renders.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from guardrail.serve.delivery import Pieces
from guardrail.serve.errors import ApiError
from guardrail.serve.openai.events import DONE, EventStream, event, with_errors
from guardrail.serve.openai.shapes import FinishReason, GenerationBody, Usage, choices, finish_reason
from guardrail.serve.service import Service, wants_decision
from guardrail.serve.verdict import GuardrailField, Verdict
from guardrail.types import RawPrompt, Reply, TokenLogprob

DEFAULT_TOKENS = 16
"""Of the OpenAI API."""


class CompletionBody(GenerationBody):
    """The body of a request. `prompt`: a text, its token ids, or a list of either."""

    idle: ClassVar = {"best_of": (1,), "suffix": ("",)}

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: int | None = None
    suffix: str | None = None


class Logprobs(BaseModel):
    """Tokens of a reply and their natural-log probabilities, in columns."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None
    guardrail: GuardrailField | None = None
    """Each prompt has its own decision."""


class Completion(BaseModel):
    """A response, or one event of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None


@dataclass(frozen=True)
class _Text:
    """One request, understood. `whole`: whether the response shows the whole decision."""

    service: Service
    body: CompletionBody
    prompts: Sequence[RawPrompt]
    options: Mapping[str, Any]
    whole: bool
    created: int = field(default_factory=lambda: int(time.time()))

    async def answer(self) -> Response:
        """All continuations."""
        ask = partial(self.service.guard.chat_many, self.prompts, **self.options)
        replies = await self.service.delivery.run(ask)
        verdicts = [Verdict.of(reply) for reply in replies]
        for reply, verdict in zip(replies, verdicts, strict=True):
            self.service.check_blocked(reply, verdict)
        # headers tell of one decision, and it should not be a harmless one
        first = next((one for one in verdicts if one.telling.stops), verdicts[0])
        completion = self._completion(first.audit_id, self._choices(replies, verdicts))
        completion.usage = Usage.of(replies)
        return JSONResponse(completion.model_dump(exclude_unset=True), headers=first.headers)

    async def stream(self) -> Response:
        """One continuation, in events."""
        async with AsyncExitStack() as stack:
            replies = self.service.guard.stream(self.prompts[0], **self.options)
            pieces = await stack.enter_async_context(self.service.delivery.stream(replies))
            if (reply := pieces.refused) is not None:
                self.service.check_blocked(reply, pieces.verdict)
            events = with_errors(self._events(pieces))
            return EventStream(events, pieces.verdict.headers, stack.pop_all())

    def _choices(self, replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> list[TextChoice]:
        found = list[TextChoice]()
        for reply, verdict, prompt in zip(replies, verdicts, self.prompts, strict=True):
            before = prompt.text if self.body.echo else ""
            for one in choices(reply, self.body.n):
                choice = TextChoice(index=len(found), text=before + one.text, logprobs=None)
                choice.finish_reason = finish_reason(reply, one)
                if self.body.logprobs is not None:
                    choice.logprobs = _logprobs(one.logprobs, len(before))
                if (said := verdict.field(self.whole)) is not None:
                    choice.guardrail = said
                found.append(choice)
        return found

    async def _events(self, pieces: Pieces) -> AsyncGenerator[str]:
        identity, numbers = pieces.verdict.audit_id, range(self.body.n or 1)
        offsets = dict.fromkeys(numbers, 0)
        begun = ""
        if self.body.echo:
            echoed = (self._piece(number, self.prompts[0].text, offsets) for number in numbers)
            begun = "".join(self._event(identity, one) for one in echoed)
        async for piece in pieces:
            logprobs = piece.logprobs if self.body.logprobs is not None else None
            yield begun + self._event(identity, self._piece(piece.number, piece, offsets, logprobs))
            begun = ""
        reply = pieces.replies.reply
        assert reply is not None
        if pieces.answer is not None:
            self.service.check_blocked(reply, Verdict.of(reply), pieces.answer)
        yield begun + "".join(self._end(identity, reply, pieces.answer or "")) + DONE

    def _end(self, identity: str, reply: Reply, answer: str) -> Iterator[str]:
        """The last events: why each reply ended, and the usage."""
        verdict = Verdict.of(reply)
        for number, one in enumerate(choices(reply, self.body.n)):
            choice = TextChoice(index=number, text=answer, logprobs=None)
            choice.finish_reason = finish_reason(reply, one)
            if (said := verdict.field(self.whole)) is not None:
                choice.guardrail = said
            yield self._event(identity, choice)
        if self.body.wants_usage:
            last = self._completion(identity, [])
            last.usage = Usage.of([reply])
            yield event(last)

    def _piece(
        self,
        number: int,
        text: str,
        offsets: dict[int, int],
        logprobs: Sequence[TokenLogprob] | None = None,
    ) -> TextChoice:
        found = None if logprobs is None else _logprobs(logprobs, offsets[number])
        offsets[number] += len(text)
        return TextChoice(index=number, text=text, logprobs=found, finish_reason=None)

    def _event(self, identity: str, choice: TextChoice) -> str:
        chunk = self._completion(identity, [choice])
        if self.body.wants_usage:
            chunk.usage = None
        return event(chunk)

    def _completion(self, identity: str, choices: list[TextChoice]) -> Completion:
        return Completion(
            id=f"cmpl-{identity}",
            object="text_completion",
            created=self.created,
            model=self.body.model,
            choices=choices,
            system_fingerprint=self.service.fingerprint,
        )


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/completions", response_model=Completion)
    async def create(body: CompletionBody, request: Request) -> Response:
        text = _understood(service, body, request)
        return await (text.stream() if body.stream else text.answer())

    return routes


def _check_one(streamed: Sequence[object]) -> None:
    if len(streamed) > 1:
        text = "A stream continues one prompt; send several one after another, or leave out 'stream'."
        raise ApiError(400, text, param="prompt", code="unsupported_value")


def _understood(service: Service, body: CompletionBody, request: Request) -> _Text:
    """Raises ApiError for what is asked in vain."""
    service.check_right(request, "ask")
    service.check_model(body.model)
    body.check_idle()
    body.check_stream()
    prompts = _prompts(service, body.prompt)
    service.check_choices(len(prompts), "prompt")
    service.check_choices(len(prompts) * (body.n or 1))
    _check_one(prompts if body.stream else ())
    limit = service.reply_tokens({"max_tokens": body.max_tokens or DEFAULT_TOKENS})
    about = service.about(request, body.metadata)
    options = {**about, **body.sampling, **_logprob_options(body.logprobs), "max_new_tokens": limit}
    return _Text(service, body, prompts, options, wants_decision(request, body.guardrail))


def _logprob_options(asked: int | None) -> dict[str, Any]:
    return {} if asked is None else {"logprobs": True, "top_logprobs": asked}


def _prompts(service: Service, given: str | list[str] | list[int] | list[list[int]]) -> list[RawPrompt]:
    if isinstance(given, str):
        return [RawPrompt(given)]
    if not given:
        raise ApiError(
            400, "Invalid value for 'prompt': there is none.", param="prompt", code="invalid_value"
        )
    if all(isinstance(one, int) for one in given):
        given = [given]  # pyright: ignore[reportAssignmentType]
    return [RawPrompt(one) if isinstance(one, str) else service.raw_prompt(one) for one in given]  # pyright: ignore[reportArgumentType]


def _logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Logprobs:
    offsets = list[int]()
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    tops = [{other.token: other.logprob for other in token.top} for token in tokens]
    return Logprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=tops if any(tops) else None,
        text_offset=offsets,
    )
