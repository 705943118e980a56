"""A client of OpenAI-compatible chat endpoints: retries if waiting may help, and fails clearly otherwise.

Retries after connection errors, time-outs, HTTP 408, 409, 425, 429 and 5xx, and answers that are not a chat
completion, with exponential back-off and jitter, or after the time in `Retry-After`. All threads share one
rate limit. The key appears only in the request header.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import httpx

from guardrail.endpoint.calls import Connections, HttpAnswer, NoAnswer
from guardrail.endpoint.messages import ChatAnswer, ChatRequest, Nonsense, read_answer
from guardrail.endpoint.messages import EndpointSettings as EndpointSettings
from guardrail.endpoint.refusals import Failure, Transient, failure_of, key_from, shown_url
from guardrail.errors import EndpointError

log = logging.getLogger("guardrail")
MAX_BYTES = 16_000_000


class _Stopped(Exception):
    """Another request of the same batch failed, so this one was cancelled."""


@dataclass(slots=True)
class _Gate:
    """Controls when the next request may go out; all threads share one."""

    interval: float
    next: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, stop: threading.Event) -> None:
        with self.lock:
            at = max(time.monotonic(), self.next)
            self.next = at + self.interval
        stop.wait(max(0.0, at - time.monotonic()))

    def pause(self, seconds: float) -> None:
        with self.lock:
            self.next = max(self.next, time.monotonic() + seconds)


class Endpoint:
    """Chat completions, from any thread. Raises ConfigError for an invalid address or key."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.url = shown_url(settings.base_url)
        self._key = key_from(settings.api_key_env)
        self._gate = _Gate(60.0 / settings.requests_per_minute if settings.requests_per_minute else 0.0)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._connections = Connections(headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def complete(self, request: ChatRequest) -> ChatAnswer:
        """One answer, with as many attempts as the settings allow. Raises EndpointError."""
        return self._complete(request, threading.Event())

    def _unless_stopped(self, request: ChatRequest, stop: threading.Event) -> ChatAnswer:
        try:
            return self._complete(request, stop)
        except EndpointError:
            stop.set()
            raise

    def _complete(self, request: ChatRequest, stop: threading.Event) -> ChatAnswer:
        failure = Failure("was not asked")
        for attempt in range(self.settings.attempts):
            self._gate.wait(stop)
            if stop.is_set():
                raise _Stopped
            try:
                return self._attempt(request)
            except Transient as transient:
                failure = transient.failure
            if attempt + 1 < self.settings.attempts:
                self._pause(failure, attempt, stop)
        times = f"{self.settings.attempts} attempts" if self.settings.attempts > 1 else "1 attempt"
        raise self._error(Failure(f"{failure.message}; gave up after {times}", failure.status))

    def each(self, requests: Iterable[ChatRequest]) -> Generator[tuple[int, ChatAnswer]]:
        """(index of the request, answer) as answers come in, at most `concurrency` at a time.

        The first EndpointError also cancels the waiting requests; answers yielded before stay valid.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="endpoint") as pool:
            waiting: dict[Future[ChatAnswer], int] = {
                pool.submit(self._unless_stopped, request, stop): i for i, request in enumerate(requests)
            }
            try:
                for done in as_completed(waiting):
                    with suppress(_Stopped):
                        yield waiting[done], done.result()
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _attempt(self, request: ChatRequest) -> ChatAnswer:
        answer = self._answer(json.dumps(request.body()).encode())
        if not httpx.codes.is_success(answer.status):
            self._refused(answer)
        try:
            return read_answer(answer.content)
        except Nonsense as error:
            raise Transient(f"answered nonsense: {error}", answer.status) from error

    def _answer(self, body: bytes) -> HttpAnswer:
        url = f"{self.settings.base_url.rstrip('/')}/chat/completions"
        try:
            return self._connections.post(url, body, self.settings.timeout_s, MAX_BYTES)
        except NoAnswer as error:
            raise Transient(str(error)) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._error(Failure(f"is not a valid address: {error}")) from error

    def _refused(self, answer: HttpAnswer) -> None:
        failure = failure_of(answer, self.settings.api_key_env, has_key=bool(self._key))
        asked = failure.retry_after or 0.0
        if asked > self.settings.max_wait_s:
            raise self._error(Failure(f"{failure.message} and asks to wait {asked:.0f} s", failure.status))
        raise Transient.of(failure) if failure.transient else self._error(failure)

    def _pause(self, failure: Failure, attempt: int, stop: threading.Event) -> None:
        backoff = self.settings.backoff_s * 2.0**attempt * random.uniform(0.5, 1.5)
        seconds = min(self.settings.max_wait_s, max(backoff, failure.retry_after or 0.0))
        if failure.retry_after:
            self._gate.pause(seconds)
        again = f"trying again in {seconds:.0f} s ({attempt + 2} of {self.settings.attempts})"
        log.warning("%s; %s", self._error(failure), again)
        stop.wait(seconds)

    def _error(self, failure: Failure) -> EndpointError:
        text = f"the endpoint {self.url} {failure.message}"
        return EndpointError(text.replace(self._key, "***") if self._key else text, failure.status)
