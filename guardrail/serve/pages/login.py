"""Logging in with an API key, logging out, and the files that pages need."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from guardrail.pipeline.cancellation import in_thread
from guardrail.pipeline.look.html import STYLE as LOOK_STYLE
from guardrail.serve.errors import ApiError
from guardrail.serve.keys import found
from guardrail.serve.pages.forms import fields_of
from guardrail.serve.pages.sessions import LIFE_S
from guardrail.serve.pages.site import ASSETS, FILES, HEADERS, LOGIN, LOGOUT, STYLE, TOKEN, Site

BEFORE = "guardrail-login"
"""The cookie that ties the form to the browser before there is a session."""
FORM_S = 3600
SHEETS = {path.name: path for path in (STYLE, LOOK_STYLE)}
"""Style sheets that reports and notebooks share."""
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def router(site: Site) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get(LOGIN)
    async def ask(request: Request, next: str = "/") -> Response:
        if await site.anyone(request) is not None:
            return _to(_target(site, next))
        return _form(site, request, next)

    @routes.post(LOGIN)
    async def login(request: Request) -> Response:
        return await _logged_in(site, request, await fields_of(request))

    @routes.post(LOGOUT)
    async def logout(request: Request) -> Response:
        if (visitor := await site.anyone(request)) is not None:
            await site.form(request, visitor)
        await in_thread(site.sessions.end, request.cookies.get(site.sessions.cookie, ""))
        response = _to(LOGIN)
        response.delete_cookie(site.sessions.cookie)
        return response

    @routes.get(f"{FILES}/{{name}}")
    async def file(name: str) -> Response:
        path = SHEETS.get(name, ASSETS / name)
        if Path(name).name != name or path.suffix not in KINDS or not path.is_file():
            raise ApiError(404, f"There is no file `{name[:100]}` here.", code="unknown_url")
        fresh = {"cache-control": "public, max-age=3600"}
        return Response(path.read_bytes(), headers={**HEADERS, **fresh}, media_type=KINDS[path.suffix])

    return routes


async def _logged_in(site: Site, request: Request, fields: Mapping[str, str]) -> Response:
    before = request.cookies.get(BEFORE, "")
    if not before or not hmac.compare_digest(before.encode(), fields.get(TOKEN, "").encode()):
        raise ApiError(403, "This form has expired. Open the login page again.", code="form_not_valid")
    key = found(site.service.keys.active, fields.get("key", "").strip())
    if key is None:
        return _form(site, request, fields.get("next", "/"), "This key is not known here.")
    response = _to(_target(site, fields.get("next", "/")))
    begun = await in_thread(site.sessions.begin, key)
    _set(response, request, site.sessions.cookie, begun, int(LIFE_S))
    response.delete_cookie(BEFORE, path=LOGIN)
    return response


def _form(site: Site, request: Request, target: str, problem: str = "") -> Response:
    token = secrets.token_urlsafe(32)
    values = {"login_token": token, "target": target, "problem": problem}
    response = site.render(None, "login.html.j2", LOGIN, status=401 if problem else 200, **values)
    _set(response, request, BEFORE, token, FORM_S, LOGIN)
    return response


def _set(response: Response, request: Request, name: str, value: str, age: int, path: str = "/") -> None:
    # a proxy in front may speak TLS for the server; who lies about it only locks themselves out
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
    response.set_cookie(name, value, age, path=path, secure=secure, httponly=True, samesite="strict")


def _to(path: str) -> RedirectResponse:
    return RedirectResponse(path, 303, dict(HEADERS))


def _target(site: Site, asked: str) -> str:
    """Where to go after the login: a page of this server, and nowhere else."""
    path = asked.partition("?")[0]
    safe = asked.startswith("/") and not asked.startswith(("//", "/\\")) and asked.isprintable()
    known = [page.path for page in site.pages]
    return asked if safe and site.has(path) and path not in (LOGIN, LOGOUT) else next(iter(known), "/")
