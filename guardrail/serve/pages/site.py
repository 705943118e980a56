"""What page modules get: who is there, what their form says, and how a template becomes a response."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from guardrail.actions.review_queue import default_path
from guardrail.pipeline.cancellation import in_thread
from guardrail.report.page import TEMPLATES
from guardrail.serve.errors import ApiError
from guardrail.serve.keys import IN_SCOPE, Right
from guardrail.serve.pages.forms import fields_of
from guardrail.serve.pages.sessions import Session, Sessions
from guardrail.serve.service import Service

STYLE = TEMPLATES / "style.css"
ASSETS = Path(__file__).parent / "assets"
LOGIN, LOGOUT, FILES = "/login", "/logout", "/pages"
TOKEN = "token"
"""The field of a form that holds its token."""
LOGIN_NEEDED = "login_needed"
POLICY = "; ".join(
    [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    # not `no-referrer`: forms would be sent with `Origin: null`
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is there: a name that records keep (empty on a server without keys), and what they may do."""

    session: Session
    name: str
    rights: Sequence[Right]

    def may(self, rights: Sequence[Right]) -> bool:
        """Whether they have any of these rights."""
        return bool(set(rights) & set(self.rights))


@dataclass(frozen=True, slots=True)
class Page:
    """An entry of the navigation: its path and what is below it, for those with any of the `rights`."""

    path: str
    title: str
    rights: Sequence[Right]
    router: Callable[[Site], APIRouter]


class Site:
    """All pages of one server."""

    def __init__(self, service: Service, pages: Sequence[Page]) -> None:
        self.service, self.pages = service, pages
        self.sessions = Sessions(lambda: service.keys.active, default_path)
        loader = PackageLoader("guardrail.serve.pages")
        self._templates = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters.update(time=shown_time)
        self._version = hashlib.sha256(STYLE.read_bytes()).hexdigest()[:12]

    def has(self, path: str) -> bool:
        """Whether a path belongs to the pages, which ask for a login themselves."""
        own = [LOGIN, LOGOUT, FILES, *(page.path for page in self.pages)]
        return any(path == one or (one != "/" and path.startswith(f"{one}/")) for one in own)

    async def anyone(self, request: Request) -> Visitor | None:
        """Who is there, whatever they may do; None if they have to log in. Raises ApiError."""
        service = self.service
        if not service.keys.active:
            return Visitor(self.sessions.everyone(), "", service.settings.open_rights)
        session = await in_thread(self.sessions.find, request.cookies.get(self.sessions.cookie, ""))
        if session is None or session.key is None:
            return None
        # for the log of requests
        request.scope[IN_SCOPE] = session.key
        return Visitor(session, session.key.name, session.key.rights)

    async def visitor(self, request: Request, rights: Sequence[Right]) -> Visitor:
        """Who is there. Raises ApiError unless they have any of these rights."""
        found = await self.anyone(request)
        if found is None:
            raise ApiError(401, "Log in first; nothing was done.", code=LOGIN_NEEDED)
        if not found.may(rights):
            needed = " or ".join(f"`{right}`" for right in rights)
            raise ApiError(403, _missing(found, needed), code="insufficient_permissions")
        return found

    async def form(self, request: Request, visitor: Visitor) -> Mapping[str, str]:
        """The fields of a form that the visitor was given for this path. Raises ApiError for any other."""
        fields = await fields_of(request)
        token = fields.get(TOKEN, "")
        await in_thread(self.sessions.spend, visitor.session, request.url.path, token)
        return fields

    def render(
        self, visitor: Visitor | None, template: str, path: str, *, status: int = 200, **values: object
    ) -> Response:
        """A template with the layout around it. `path` is the page's own, for the navigation."""
        open_to = [page for page in self.pages if visitor is not None and visitor.may(page.rights)]
        own = {"visitor": visitor, "pages": open_to, "path": path, "token": _tokens(visitor)}
        own["version"] = self._version
        text = self._templates.get_template(template).render(own | values)
        # half a surrogate pair, which a prompt may quote, cannot be sent
        body = text.encode("utf-8", "backslashreplace")
        return HTMLResponse(body, status, {**HEADERS, "cache-control": "no-store"})

    async def problem(self, request: Request, error: ApiError) -> Response:
        """The page of an error; a visitor who only has to log in is sent there."""
        if error.code == LOGIN_NEEDED and request.method == "GET":
            back = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="")
            return RedirectResponse(f"{LOGIN}?next={back}", 303, dict(HEADERS))
        try:
            visitor = await self.anyone(request)
        except ApiError:
            visitor = None
        made = self.render(visitor, "problem.html.j2", "", status=error.status_code, error=error)
        made.headers.update(error.headers or {})
        return made


def router(site: Site) -> APIRouter:
    """The routes of all pages."""
    from guardrail.serve.pages import login

    routes = APIRouter(include_in_schema=False)
    for made in (login.router, *(page.router for page in site.pages)):
        routes.include_router(made(site))
    return routes


def shown_time(written: str) -> str:
    """An ISO time to the second, in UTC."""
    return datetime.fromisoformat(written).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _tokens(visitor: Visitor | None) -> Callable[[str], str]:
    """Makes the tokens of the forms of a page."""
    return (lambda path: "") if visitor is None else visitor.session.token


def _missing(visitor: Visitor, needed: str) -> str:
    if visitor.session.key is None:
        return (
            f"This page needs an API key with the right {needed}, and this server has no keys. "
            "Make one with `guardrail keys new NAME --right review --keys keys.yaml`, and start the server "
            "with `--keys keys.yaml`."
        )
    return f"The key `{visitor.name}` does not have the right {needed}, which this page needs."
