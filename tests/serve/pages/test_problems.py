"""Errors: pages for people, JSON for programs, and nothing about what went wrong inside."""

import logging
import re

import pytest
from visiting import KEYS, browser

from guardrail.serve.app import create_app
from guardrail.serve.logs import FIELDS
from guardrail.serve.settings import ServerSettings
from guardrail.testing import tiny_guard

HTML = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    policy = {"id": "no-evil", "trait": "evil", "layer": 2, "threshold": {"raw": 1e6}, "action": "block"}
    with tiny_guard(tmp_path_factory.mktemp("guard"), {"policies": [policy]}) as made:
        app = create_app(made, ServerSettings(keys=KEYS, max_body=1000))

        @app.get("/pages/a/broken")
        async def broken():
            raise RuntimeError("the prompt of somebody")

        yield app


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/nothing", b"", 401, "API key"),
        ("GET", "/review/a/b/c", b"", 404, "Invalid URL (GET /review/a/b/c)"),
        ("PUT", "/review", b"", 405, "use GET"),
        ("POST", "/review/t1", b"note=" + b"x" * 1000, 413, "larger than 1,000 bytes"),
        ("GET", "/pages/a/broken", b"", 500, "the server failed on this request"),
    ],
)
async def test_an_error_is_a_page_for_people_and_json_for_programs(app, method, path, body, status, said):
    async with browser(app, "ann") as http:
        page = await http.request(method, path, content=body, headers={**HTML, **FORM})
        assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert said in page.text
        assert "style.css" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        accept = {"accept": "application/json", **FORM}
        told = await http.request(method, path, content=body, headers=accept)
        assert (told.status_code, said in told.json()["error"]["message"]) == (status, True)
        assert told.headers.get("allow") == page.headers.get("allow")


async def test_what_nobody_expected_is_found_in_the_log_by_its_id(app, caplog):
    async with browser(app, "ann") as http:
        with caplog.at_level(logging.ERROR, "guardrail.serve"):
            page = await http.get("/pages/a/broken", headers=HTML)
    (name,) = re.findall(r"under the error id ([0-9a-f]{12})", page.text)
    (record,) = [one for one in caplog.records if "a request failed" in one.message]
    assert getattr(record, FIELDS) == {"error_id": name}
    assert "RuntimeError" in record.message
    for text in ("somebody", "Traceback", "RuntimeError"):
        assert text not in page.text
