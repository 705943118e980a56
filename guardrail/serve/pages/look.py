"""`/look`: one prompt under the microscope. The model's texts on it are not guarded, so it needs `admin`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from guardrail.errors import ConfigError, PromptError
from guardrail.pipeline.look.results import Look
from guardrail.serve.keys import Right
from guardrail.serve.pages.site import Page, Site, Visitor
from guardrail.types import Message

PATH = "/look"
RIGHTS: tuple[Right, ...] = ("admin",)
LONGEST, MOST_NEAR, TOKENS = 8000, 64, 48
"""Letters of a text, benign prompts, and tokens of each preview."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form says."""

    prompt: str = ""
    system: str = ""
    near: str = ""
    preview: bool = True

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Asked:
        """The fields, as they were typed."""
        get = fields.get
        return cls(get("prompt", ""), get("system", ""), get("near", ""), "preview" in fields)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation. Raises PromptError for texts that are too long for this page."""
        if max(map(len, (self.prompt, self.system, self.near))) > LONGEST:
            raise PromptError(f"a text is longer than {LONGEST} letters, which is all that this page takes")
        system = [Message("system", self.system)] if self.system.strip() else []
        return (*system, Message("user", self.prompt))

    @property
    def benign(self) -> Sequence[str]:
        """The benign prompts, one a line."""
        return [line for line in self.near.splitlines() if line.strip()][:MOST_NEAR]


def router(site: Site) -> APIRouter:
    """The routes."""
    routes, guard, settings = APIRouter(), site.service.guard, site.service.settings

    def shown(
        visitor: Visitor, asked: Asked, found: Look | None = None, problem: str = "", status: int = 200
    ) -> Response:
        # the fragment escapes all that comes from outside
        drawn = Markup(found.html()) if found else None
        return site.render(
            visitor, "look.html.j2", PATH, status=status, asked=asked, found=drawn, problem=problem
        )

    @routes.get(PATH)
    async def ask(request: Request) -> Response:
        return shown(await site.visitor(request, RIGHTS), Asked())

    @routes.post(PATH)
    async def show(request: Request) -> Response:
        visitor = await site.visitor(request, RIGHTS)
        asked = Asked.of(await site.form(request, visitor))
        try:
            preview, near = TOKENS if asked.preview else 0, asked.benign or settings.near
            found = await guard.alook(asked.messages, preview=preview, near=near)
        except (PromptError, ConfigError) as error:
            return shown(visitor, asked, problem=str(error), status=400)
        return shown(visitor, asked, found)

    return routes


PAGE = Page(PATH, "Look", RIGHTS, router)
