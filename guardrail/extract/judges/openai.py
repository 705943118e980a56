"""A judge behind an OpenAI-compatible endpoint, scored from the probabilities of its first token.

One call per request: one token, temperature 0, seed 0, the 20 most likely alternatives. This needs a model
with single tokens for whole numbers up to 100; a model that spells digit by digit is detected and refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from guardrail.endpoint.client import Endpoint, EndpointSettings
from guardrail.endpoint.messages import ChatAnswer, ChatRequest, TokenLogprob
from guardrail.endpoint.refusals import key_from, shown_url
from guardrail.errors import EndpointError, JudgeError
from guardrail.extract.judges.aggregation import TOP, aggregate
from guardrail.extract.judges.cache import Opinions, in_order
from guardrail.extract.judges.opinions import Opinion
from guardrail.plugins.protocols import JudgeRequest
from guardrail.traits import fill
from guardrail.types import Message

PROBE = "Write the number 85. Write the digits only, nothing else."


class OpenAIJudge:
    """`model` judges at an endpoint; the first failure ends the batch. Connections last for one batch.

    Raises ConfigError for an invalid address or key.
    """

    def __init__(self, model: str, settings: EndpointSettings) -> None:
        self.name = f"openai:{model}"
        self.identity = f"{self.name}@{shown_url(settings.base_url)}"
        self.model = model
        self.settings = settings
        key_from(settings.api_key_env)
        self._probed = False

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Scores in the order of the requests. Raises JudgeError if the endpoint gives no usable answer."""
        return [one.score for one in self.opinions(requests)]

    def opinions(self, requests: Sequence[JudgeRequest]) -> Sequence[Opinion]:
        """As `scores`, with the mass of the numbers."""
        return in_order(self, requests)

    def stream(self, requests: Sequence[JudgeRequest]) -> Iterator[Opinions]:
        """Scores one by one, as answers arrive. Raises JudgeError."""
        asked = [self._request(fill(r.rubric, r.question, r.answer)) for r in requests]
        try:
            with Endpoint(self.settings) as endpoint:
                self._probe(endpoint)
                with closing(endpoint.each(asked)) as answers:
                    for i, answer in answers:
                        yield [(i, self._opinion(answer))]
        except EndpointError as error:
            raise JudgeError(f"the judge {self.name} cannot be used: {error}") from error

    def _request(self, text: str) -> ChatRequest:
        return ChatRequest(
            model=self.model,
            messages=(Message("user", text),),
            max_tokens=1,
            temperature=0.0,
            seed=0,
            top_logprobs=TOP,
        )

    def _opinion(self, answer: ChatAnswer) -> Opinion:
        return aggregate(self._alternatives(answer))

    def _alternatives(self, answer: ChatAnswer) -> tuple[TokenLogprob, ...]:
        if answer.first is None:
            raise JudgeError(
                f"the judge {self.name} gives no log-probabilities; "
                "use an endpoint that supports `top_logprobs`, or local:MODEL"
            )
        return answer.first

    def _probe(self, endpoint: Endpoint) -> None:
        """Check once that a number is one token. Otherwise 85 would be read as 8."""
        if self._probed:
            return
        answer = endpoint.complete(self._request(PROBE))
        likeliest = max(self._alternatives(answer), key=lambda a: a.logprob)
        if likeliest.token.strip() == "8":
            raise JudgeError(
                f"the judge {self.name} spells numbers digit by digit, so its first token is not a score; "
                "use a model with whole-number tokens, or local:MODEL"
            )
        self._probed = True
