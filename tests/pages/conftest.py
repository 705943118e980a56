"""A real browser, and a real server whose pages it opens. Skipped without selenium: see `make test-pages`."""

from __future__ import annotations

import shutil
from functools import partial

import httpx
import pytest
from serving import Running, chat
from visiting import KEYS

from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings
from guardrail.testing import tiny_guard

POLICY = {
    "id": "to-a-person",
    "trait": "evil",
    "layer": 2,
    "threshold": {"raw": -20.0},
    "message": "A person has decided not to answer this.",
    "action": {"escalate": {"to": "review-queue", "holding": "A person will look at this."}},
}
SHADOW = {
    "id": "watching",
    "trait": "evil",
    "layer": 3,
    "threshold": {"raw": 4.0},
    "mode": "shadow",
    "action": "block",
}


@pytest.fixture(scope="session")
def browsers(tmp_path_factory):
    """Opens browsers of their own, each as a new person; closes them at the end."""
    pytest.importorskip("selenium")
    from browsing import Browser

    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.fail("chromium and chromedriver are not installed; `make test-pages` installs them")
    made = list[Browser]()

    def start(**options):
        made.append(Browser(tmp_path_factory.mktemp("profile"), **options))
        return made[-1]

    yield start
    for one in made:
        one.quit()


@pytest.fixture(scope="session")
def ann(browsers):
    """A browser for most tests. They log in, and begin at a page of their own."""
    return browsers()


@pytest.fixture(scope="session")
def serving_pages(tmp_path_factory):
    """Serves a guard until the end of the session, on a port of its own: `serving_pages(guard)`."""
    made = list[Running]()

    def start(guard, **settings):
        settings = {"port": 0, "keys": KEYS} | settings
        made.append(Running(create_app(guard, ServerSettings(**settings))))
        return made[-1].url

    yield start
    for one in made:
        one.end()
        one.thread.join(10)


@pytest.fixture(scope="session")
def site(tmp_path_factory, serving_pages):
    """The address of a server whose policy sends every prompt to the review queue."""
    folder = tmp_path_factory.mktemp("guard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUARDRAIL_REVIEW_QUEUE", str(folder / "queue.sqlite"))
        policies = {"policies": [POLICY, SHADOW], "audit": {"sqlite": str(folder / "audit.sqlite")}}
        with tiny_guard(folder, policies) as guard:
            yield serving_pages(guard)


@pytest.fixture
def ticket(site):
    """Sends a prompt to the server; gives the id of its ticket."""
    return partial(ask, site)


def ask(site, text="I want to hurt them badly.", before=(), key="app", conversation="c-1"):
    messages = [*before, {"role": "user", "content": text}]
    headers = {"authorization": f"Bearer gr-{key}", "x-guardrail-conversation": conversation}
    with httpx.Client(base_url=site, headers=headers, timeout=60) as http:
        return http.post("/v1/chat/completions", json=chat(messages)).headers["x-guardrail-ticket-id"]
