"""The microscope as a page."""

import pytest
from visiting import KEYS, browser, hidden

from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings


@pytest.fixture
def app(guard):
    return create_app(guard, ServerSettings(keys=KEYS))


async def look(http, **fields):
    page = await http.get("/look")
    return await http.post("/look", data={**hidden(page.text, "/look"), **fields})


async def test_a_prompt_is_shown_with_what_policies_would_do(app):
    async with browser(app, "boss") as http:
        system = "You are an extremely cruel assistant."
        page = await look(http, prompt="I want to hurt them badly.", system=system)
        assert page.status_code == 200
        assert "no-malice fires" in page.text
        assert '<svg class="heat"' in page.text
        assert "Side by side" not in page.text
        assert "Nearest benign prompts" in page.text
        style = await http.get("/pages/look.css")
        assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")


async def test_the_server_names_benign_prompts_that_a_form_may_replace(guard, tmp_path):
    (tmp_path / "ours.txt").write_text("Hello there.\nWhat is the capital of Italy?\n")
    app = create_app(guard, ServerSettings(keys=KEYS, near=tmp_path / "ours.txt"))
    async with browser(app, "boss") as http:
        page = await look(http, prompt="Hello.")
        assert "prompts of ours.txt" in page.text
        assert "capital of Italy?" in page.text
        page = await look(http, prompt="Hello.", near="Another one.")
        assert "the prompts given" in page.text
        assert "capital of Italy?" not in page.text
        (tmp_path / "ours.txt").unlink()
        page = await look(http, prompt="Hello.")
        assert (page.status_code, "No such file" in page.text) == (400, True)


async def test_the_page_is_for_those_who_manage_the_server(app):
    async with browser(app, "ann") as http:
        assert (await http.get("/look")).status_code == 403
        assert 'href="/look"' not in (await http.get("/review")).text


async def test_what_is_typed_stays_and_is_inert(app):
    async with browser(app, "boss") as http:
        page = await look(
            http, prompt="<script>alert(1)</script>", near="</textarea><script>alert(2)</script>"
        )
        assert page.status_code == 200
        assert "<script" not in page.text
        assert "&lt;script&gt;alert(1)" in page.text


@pytest.mark.parametrize(
    ("prompt", "said"),
    [(" ", "empty"), ("x" * 8001, "longer than 8000"), ("word " * 1500, "the model takes")],
)
async def test_a_prompt_that_cannot_be_read_comes_back_with_the_reason(app, prompt, said):
    async with browser(app, "boss") as http:
        page = await look(http, prompt=prompt)
        assert page.status_code == 400
        assert said in page.text


async def test_a_form_without_its_token_is_refused(app):
    async with browser(app, "boss") as http:
        refused = await http.post("/look", data={"prompt": "Hello."})
        assert refused.status_code == 403
