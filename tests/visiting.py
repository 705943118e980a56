"""Browsers without a screen: clients that keep cookies and send forms."""

import re
from contextlib import asynccontextmanager

import httpx

from guardrail.serve.keys import Key, sha256

RIGHTS = {"app": ("ask",), "ann": ("review",), "bob": ("ask", "review"), "boss": ("admin", "metrics")}
KEYS = tuple(Key(name=name, sha256=sha256(f"gr-{name}"), rights=rights) for name, rights in RIGHTS.items())


@asynccontextmanager
async def browser(app, *names):
    """A browser for each name, logged in with its key; one alone is not in a list."""
    made = [httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") for _ in names]
    for name, http in zip(names, made, strict=True):
        if name is not None:
            assert (await login(http, f"gr-{name}")).status_code == 303
    yield made[0] if len(made) == 1 else made
    for http in made:
        await http.aclose()


async def login(http, key, target="/review"):
    """Log in by the form."""
    page = await http.get("/login", params={"next": target})
    return await http.post("/login", data={**hidden(page.text), "key": key})


def hidden(html, action=None):
    """The hidden fields of a form: of the one that is sent to `action`, or of the last one."""
    forms = re.findall(r"<form\b.*?</form>", html, re.DOTALL)
    form = [one for one in forms if action is None or f'action="{action}"' in one][-1]
    return dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form))
