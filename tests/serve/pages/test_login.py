"""Who gets to the pages: login, its end, and the tokens of forms."""

import pytest
from visiting import KEYS, browser, hidden, login

from guardrail.serve.app import create_app
from guardrail.serve.keys import Key, sha256
from guardrail.serve.pages.sessions import IDLE_S, LIFE_S, Sessions
from guardrail.serve.settings import ServerSettings
from guardrail.testing import tiny_guard


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    policy = {"id": "no-evil", "trait": "evil", "layer": 2, "threshold": {"raw": 1e6}, "action": "block"}
    with tiny_guard(tmp_path_factory.mktemp("guard"), {"policies": [policy]}) as made:
        yield made


@pytest.fixture
def app(guard):
    return create_app(guard, ServerSettings(keys=KEYS))


async def test_a_page_asks_for_a_login_and_comes_back(app):
    async with browser(app, None) as http:
        first = await http.get("/review?order=old")
        assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2Freview%3Forder%3Dold")
        done = await login(http, "gr-ann", "/review?order=old")
        assert (done.status_code, done.headers["location"]) == (303, "/review?order=old")
        assert (await http.get("/review")).status_code == 200


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(app):
    async with browser(app, None) as http:
        done = await login(http, "gr-ann")
        cookie = next(one for one in done.headers.get_list("set-cookie") if "session" in one)
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert "gr-ann" not in cookie
    async with browser(app, None) as http:
        page = await http.get("/login", headers={"x-forwarded-proto": "https"})
        assert "Secure" in page.headers["set-cookie"]


@pytest.mark.parametrize("key", ["gr-nobody", "", "gr-ann\0", "🔑"])
async def test_a_wrong_key_is_refused_and_not_repeated(app, key):
    async with browser(app, None) as http:
        refused = await login(http, key)
        assert refused.status_code == 401
        assert "not known" in refused.text
        assert not key or key not in refused.text
        assert (await http.get("/review")).status_code == 303


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "/v1/models", "x"]
)
async def test_a_login_leads_to_pages_only(app, target):
    async with browser(app, None) as http:
        done = await login(http, "gr-ann", target)
        assert done.headers["location"] == app.state.site.pages[0].path


async def test_the_login_form_is_tied_to_the_browser_that_asked_for_it(app):
    async with browser(app, None, None) as (http, other):
        theirs = hidden((await other.get("/login")).text)
        await http.get("/login")
        assert (await http.post("/login", data={**theirs, "key": "gr-ann"})).status_code == 403


async def test_a_key_opens_the_pages_of_its_rights(app):
    async with browser(app, "app") as http:
        refused = await http.get("/review")
        assert refused.status_code == 403
        assert "does not have the right `review`" in refused.text
        assert 'href="/review"' not in refused.text


async def test_who_logs_out_is_out(app):
    async with browser(app, "ann") as http:
        page = await http.get("/review")
        kept = dict(http.cookies)
        done = await http.post("/logout", data=hidden(page.text, "/logout"))
        assert done.headers["location"] == "/login"
        http.cookies.update(kept)
        assert (await http.get("/review")).status_code == 303


async def test_a_form_of_another_session_or_path_or_without_a_token_is_refused(app):
    async with browser(app, "ann", "bob") as (ann, bob):
        theirs = hidden((await bob.get("/review")).text, "/logout")
        for data in (theirs, {"other": "1"}, {"token": "x"}, {"token": "é.é"}):
            assert (await ann.post("/logout", data=data)).status_code == 403
        assert (await ann.get("/review")).status_code == 200


async def test_a_form_that_another_site_sends_is_refused(app):
    async with browser(app, "ann") as http:
        data = hidden((await http.get("/review")).text, "/logout")
        refused = await http.post("/logout", data=data, headers={"sec-fetch-site": "cross-site"})
        assert refused.status_code == 403


@pytest.mark.parametrize("body", [b"a=1&a=2", b"\xff", b"key=%ff", b"&".join([b"a%d=1"] * 200)])
async def test_a_form_that_cannot_be_read_is_a_page_that_says_so(app, body):
    async with browser(app, None) as http:
        sent = {"content-type": "application/x-www-form-urlencoded"}
        answer = await http.post("/login", content=body, headers=sent)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
        assert (await http.post("/login", json={})).status_code == 415


async def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(app):
    async with browser(app, "ann") as http:
        for path in ("/review", "/login", "/nothing", "/pages/none.css"):
            answer = await http.get(path)
            if "html" in answer.headers.get("content-type", ""):
                policy = answer.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "style=" not in answer.text
                assert "http:" not in answer.text.replace("http://localhost", "")
        assert (await http.get("/pages/style.css")).headers["content-type"].startswith("text/css")
        assert (await http.get("/pages/..%2fsite.py")).status_code == 404


async def test_a_server_without_keys_asks_for_no_login_and_nobody_reviews(guard):
    async with browser(create_app(guard, ServerSettings()), None) as http:
        answer = await http.get("/review")
        assert answer.status_code == 403
        assert "keys new" in answer.text
        assert (await http.get("/login")).status_code == 303


def test_a_session_ends_when_it_is_idle_or_old_or_its_key_is_gone(tmp_path):
    now, keys = [0.0], [Key(name="ann", sha256=sha256("x"), rights=("review",))]
    sessions = Sessions(lambda: keys, lambda: tmp_path / "queue.sqlite", clock=lambda: now[0])
    assert sessions.find("made up") is None
    assert not list(tmp_path.iterdir()), "who looks makes no file"
    idle, old, revoked = [sessions.begin(keys[0]) for _ in range(3)]
    assert sessions.find(idle).key.name == "ann"
    while now[0] < LIFE_S:
        now[0] += IDLE_S - 1
        found = sessions.find(old), sessions.find(revoked)
        assert all(found) == (now[0] <= LIFE_S)
    assert [sessions.find(one) for one in (idle, old)] == [None, None]
    again = sessions.begin(keys[0])
    keys[0] = Key(name="ann", sha256=sha256("x"), rights=("ask",))
    assert sessions.find(again).key.rights == ("ask",)
    keys[0] = Key(name="ann", sha256=sha256("y"), rights=("review",))
    assert sessions.find(again) is None
    assert sessions.find("made up") is None


def test_a_file_of_sessions_lets_nobody_in(tmp_path):
    key = Key(name="ann", sha256=sha256("x"), rights=("review",))
    path = tmp_path / "queue.sqlite"
    sessions = Sessions(lambda: [key], lambda: path)
    begun = sessions.begin(key)
    session = sessions.find(begun)
    sessions.spend(session, "/review", token := session.token("/review"))
    kept = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert session.hash.encode() in kept
    for secret in (begun, token.partition(".")[0]):
        assert secret.encode() not in kept
    assert path.stat().st_mode & 0o077 == 0


def test_sessions_and_their_forms_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("guardrail.serve.pages.sessions.MAX_SESSIONS", 3)
    monkeypatch.setattr("guardrail.serve.pages.sessions.MAX_FORMS", 2)
    now, key = [0.0], Key(name="ann", sha256=sha256("x"), rights=("review",))
    sessions = Sessions(lambda: [key], lambda: tmp_path / "queue.sqlite", clock=lambda: now[0])
    begun = list[str]()
    for now[0] in range(5):
        begun.append(sessions.begin(key))
    assert [sessions.find(one) is not None for one in begun] == [False, False, True, True, True]
    session = sessions.find(begun[-1])
    for _ in range(2):
        sessions.spend(session, "/", session.token("/"))
    assert sessions.find(begun[-1]) is None


async def test_processes_that_share_the_review_queue_share_logins_and_forms(guard):
    first, second = (create_app(guard, ServerSettings(keys=KEYS, port=port)) for port in (8001, 8002))
    async with browser(first, "ann") as one, browser(second, None) as other:
        other.cookies.update(dict(one.cookies))
        page = await other.get("/review")
        assert page.status_code == 200
        form = hidden(page.text, "/logout")
        path = "/review/none"
        token = first.state.site.sessions.find(next(iter(one.cookies.values()))).token(path)
        assert (await other.post(path, data={"token": token})).status_code == 404
        again = await one.post(path, data={"token": token})
        assert (again.status_code, "was sent before" in again.text) == (409, True)
        assert (await other.post("/logout", data=form)).headers["location"] == "/login"
        assert (await one.get("/review")).status_code == 303, "a logout holds everywhere"


async def test_a_file_that_cannot_be_used_is_a_page_that_says_so(app, tmp_path, monkeypatch):
    async with browser(app, "ann") as http:
        kept = next(iter(http.cookies.values()))
        (tmp_path / "queue").mkdir()
        monkeypatch.setenv("GUARDRAIL_REVIEW_QUEUE", str(tmp_path / "queue"))
        http.cookies.set(app.state.site.sessions.cookie, kept)
        answer = await http.get("/review")
        assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "cannot be used now" in answer.text
