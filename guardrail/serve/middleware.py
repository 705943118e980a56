"""ASGI middleware for chatbots of one's own: a guard reads the prompt of a request before the application.

Needs nothing but starlette, which FastAPI brings along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from re import Pattern
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.errors import ConfigError, GuardClosed, GuardrailError, PromptError, QueueFull
from guardrail.files.json_text import decoded
from guardrail.pipeline.options import RequestOptions
from guardrail.pipeline.ruling import Ruling
from guardrail.serve.verdict import Verdict
from guardrail.types import Messages

if TYPE_CHECKING:
    from guardrail import Guard

Prompt: TypeAlias = Messages | str
Finder: TypeAlias = Callable[[Any], Prompt]
"""From the parsed body to the prompt. Raises LookupError or TypeError for a body that has none."""


def refusal(ruling: Ruling) -> Response:
    """What a client gets for a prompt that is refused, unless the application has something else to say."""
    fields = ("action", "policy", "audit_id", "ticket_id")
    said = ruling.as_json()
    return JSONResponse({"detail": ruling.text, "guardrail": {name: said[name] for name in fields}}, 403)


class GuardMiddleware:
    """Rules on the prompt in the body of each request to the given paths; no other request is touched.

    A prompt that passes reaches the application, with the ruling in `request.state.guardrail` and in the
    response's headers `x-guardrail-*`. The application is not called for one that is refused, for a body
    without a prompt, and for a WebSocket. A GET without a body passes: it has no JSON.

    guard: the guard of the model that reads. prompts: where the prompt is in the JSON body, by path as in
        FastAPI: a dotted path such as `messages` or `input.0.text`, or a function of the parsed body. The
        prompt is a text, or messages as in the OpenAI API.
        Raises ConfigError for a path without a slash in front.
    refused: makes the response to a prompt that is refused. about: tags and conversation of a connection.
    max_body: bytes that a body may have.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: Guard,
        prompts: Mapping[str, str | Finder],
        *,
        refused: Callable[[Ruling], Response] = refusal,
        about: Callable[[HTTPConnection], RequestOptions] | None = None,
        max_body: int = 4 << 20,
    ) -> None:
        self._app, self._guard, self._refused, self._about, self._limit = app, guard, refused, about, max_body
        self._finders = [
            (_pattern(path), where if callable(where) else _at(where)) for path, where in prompts.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        finder = self._finder(scope)
        if finder is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "prompts come by POST here"})
        else:
            await self._answer(finder, scope, receive, send)

    def _finder(self, scope: Scope) -> Finder | None:
        if scope["type"] not in ("http", "websocket") or scope.get("method") in ("OPTIONS", "HEAD"):
            return None
        path = _bare(_path(scope))
        return next((finder for pattern, finder in self._finders if pattern.match(path)), None)

    async def _answer(self, finder: Finder, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive, self._limit)
            if scope["method"] == "GET" and not body:
                await self._app(scope, _again(body, receive), send)
                return
            about = self._about(HTTPConnection(scope)) if self._about else RequestOptions()
            ruling = await self._guard.aruling(_prompt(finder, scope, body), **about)
        except _Gone:
            return
        except (_Unread, GuardrailError) as error:
            await _failure(error)(scope, receive, send)
            return
        marking = _marking(ruling, send)
        if ruling.passes:
            scope.setdefault("state", {})["guardrail"] = ruling
            await self._app(scope, _again(body, receive), marking)
        else:
            await self._refused(ruling)(scope, receive, marking)


def _path(scope: Scope) -> str:
    """Below the path under which the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    return path[len(root) :] if path.startswith(f"{root}/") else path


def _pattern(path: str) -> Pattern[str]:
    """Raises ConfigError for a path that no request has."""
    if not path.startswith("/"):
        raise ConfigError(f"a path begins with a slash: `/{path}`, not `{path}`")
    return compile_path(_bare(path))[0]


def _bare(path: str) -> str:
    """Without slashes at the end: applications redirect from one form to the other, or take both."""
    return path.rstrip("/") or "/"


class _Gone(Exception):
    """The client left before its request was whole."""


class _Unread(Exception):
    """There is no prompt in the request: a status and what to change."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _failure(error: Exception) -> Response:
    """No verdict, so no pass."""
    if isinstance(error, _Unread):
        return JSONResponse({"detail": str(error)}, error.status)
    if isinstance(error, PromptError):
        return JSONResponse({"detail": str(error)}, 400)
    if isinstance(error, QueueFull | GuardClosed):
        return JSONResponse({"detail": str(error)}, 503, {"retry-after": "1"})
    return JSONResponse({"detail": f"the prompt could not be checked: {error}"}, 500)


async def _read(receive: Receive, limit: int) -> bytes:
    parts, size, more = list[bytes](), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > limit:
            raise _Unread(413, f"the body is larger than {limit:,} bytes")
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more, then whatever else the client does."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again


def _marking(ruling: Ruling, send: Send) -> Send:
    """Adds the decision to the response's headers."""

    async def marking(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(Verdict.ruled(ruling).headers)
        await send(message)

    return marking


def _prompt(finder: Finder, scope: Scope, body: bytes) -> Prompt:
    """Raises _Unread."""
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise _Unread(415, "send JSON, with `content-type: application/json`")
    try:
        found = finder(decoded(body, _unique))
    except (ValueError, RecursionError) as error:
        raise _Unread(400, f"the body could not be read: {error}") from None
    except (LookupError, TypeError) as error:
        raise _Unread(422, f"there is no prompt in the body: {error}") from None
    if not isinstance(found, str | list):
        raise _Unread(422, f"the prompt is a text or a list of messages, not {type(found).__name__}")
    return found


def _at(path: str) -> Finder:
    """What is at a dotted path; a number counts the items of a list."""
    keys = path.split(".")

    def find(body: Any) -> Prompt:
        for key in keys:
            try:
                body = body[int(key) if isinstance(body, list) else key]
            except (LookupError, TypeError, ValueError):
                raise LookupError(f"nothing at `{path}`") from None
        return body

    return find


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    """Raises ValueError for a key that is there twice: the application may read the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return found
