"""The dashboard: what it says of a log, what its forms do without a script, and who may see it."""

import re
from dataclasses import replace
from html import unescape

import pytest
from serving import CRUEL, asking, chat
from traffic import logged, traffic, write
from visiting import KEYS, browser

from guardrail import Guard
from guardrail.serve.app import create_app
from guardrail.serve.dashboard.live import Unlogged
from guardrail.serve.settings import ServerSettings

INERT = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def guard(folder):
    """The built-in model with a log, and a shadow policy. The log is written by the tests."""
    with Guard.from_pretrained("demo", logged(folder)) as guard:
        yield guard


@pytest.fixture
def log(folder, guard):
    """Gives the guard's log other content."""

    def written(records):
        return write(folder / "audit.jsonl", records)

    yield written
    (folder / "audit.jsonl").unlink(missing_ok=True)


@pytest.fixture
def day(guard, log):
    log(traffic(guard.active.plan, 600, harmful=0.2, every_s=0))


@pytest.fixture
async def http(guard):
    async with asking(create_app(guard, ServerSettings())) as http:
        yield http


def words(html):
    """What a page says."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


async def whole(http):
    """What the page says once all of the log is read, which takes a busy machine more than one look."""
    for _ in range(100):
        if "still being read" not in (text := words((await http.get("/")).text)):
            return text
    raise TimeoutError(text)


async def test_the_first_lines_answer_the_three_questions(http, day):
    text = await whole(http)
    assert re.search(r"Today \(UTC\) \d+ of 600 requests were blocked \([\d.]+ %\): \d+ by no-malice", text)
    assert "too strict" in text
    assert re.search(r"the guard took 0\.\d+ ms of a request \(median", text)


async def test_drift_is_among_the_first_lines(http, guard, log):
    log(traffic(guard.active.plan, 600, harmful=0.2, every_s=0))
    assert "Drift: " in (await whole(http)).partition("What was done")[0]
    log(traffic(guard.active.plan, 30, harmful=0, every_s=0))
    text = await whole(http)
    assert "Too few prompts (30)" in text.partition("What was done")[0]
    assert "Nothing has drifted" not in text


async def test_numbers_of_different_sets_say_what_they_count(http, guard, log):
    records = list(traffic(guard.active.plan, 600, harmful=0.2, broken=0, every_s=0))
    failed = next(traffic(guard.active.plan, 1, broken=1, every_s=0))
    log([*records, failed])
    text = await whole(http)
    assert re.search(r"\d+ of 601 requests were blocked", text)
    assert "1 of today's requests were not evaluated; 0 of them were let through" in text
    decided = sum(r.decision.policy == "to-a-person" for r in records)
    fired = sum("to-a-person" in r.decision.fired for r in records)
    assert fired > decided > 0
    assert f"Fires on {fired} of the 600 requests that it scored" in text
    stronger = f"For {fired - decided} of these, an enforced policy that does as much or more fired too"
    assert stronger in text
    shadow = sum("careful-facts" in r.decision.fired for r in records)
    assert f"Would fire on {shadow} of the 600 requests that it scored" in text


async def test_why_something_was_blocked_is_said(http, day):
    text = words((await http.get("/")).text)
    assert re.search(r"block \d+ [\d.]+ % no-malice evil at layer \d: [\d.]+ ≥ [\d.]+", text)


async def test_another_threshold_is_tried_without_a_script(http, day):
    page = await http.get("/", params={"policy": "to-a-person", "condition": 0, "threshold": "0.50"})
    text = words(page.text)
    found = re.search(
        r"At 0\.50 it would have fired on (\d+) of the (\d+) requests that it scored, ([\d.]+) %", text
    )
    assert found
    assert float(found[3]) == pytest.approx(100 * int(found[1]) / int(found[2]), abs=0.01)
    assert 'value="0.50"' in page.text
    assert "tried 0.50" in page.text


@pytest.mark.parametrize(
    "query",
    [
        "policy=none&threshold=1",
        "policy=no-malice&condition=7&threshold=1",
        "policy=no-malice&condition=-1&threshold=1",
        "policy=no-malice&condition=1e300&threshold=1",
        "policy=no-malice&threshold=nan",
        "policy=no-malice&threshold=1e999",
        "last=all",
        "last=-5",
        "threshold=%00",
    ],
)
async def test_questions_that_make_no_sense_are_left_unanswered(http, day, query):
    page = await http.get(f"/?{query}")
    assert page.status_code == 200
    assert "it would have fired on" not in page.text


async def test_enforcing_a_shadow_is_shown_as_a_diff_and_not_done(http, day, folder):
    before = (folder / "policies.yaml").read_text()
    page = await http.get("/?promote=careful-facts")
    assert re.search(r"- +mode: shadow\s+\+ +mode: enforce", words(page.text))
    assert (folder / "policies.yaml").read_text() == before
    assert "no shadow policy `no-malice`" in (await http.get("/?promote=no-malice")).text


async def test_an_empty_log_and_a_missing_one_are_said(http, log):
    text = words((await http.get("/")).text)
    assert "The audit log cannot be read now" in text
    log([])
    text = words((await http.get("/")).text)
    assert "No request today" in text
    assert "there is nothing to compare" in text


async def test_a_corrupt_log_shows_what_can_be_shown(http, guard, log):
    path = log(traffic(guard.active.plan, 40, every_s=0))
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*content[:30], b"rubbish\n", b'{"v":9}\n', *content[30:]]))
    text = words((await http.get("/")).text)
    assert "1 of 82 lines of the audit log are damaged" in text
    assert "1 of 82 lines are in another version" in text
    assert "of 40 requests were blocked" in text or "0 of 40" in text


async def test_a_calibration_that_does_not_fit_is_said(http, guard, log):
    other = [
        replace(record, decision=replace(record.decision, calibration_sha256="0" * 64))
        for record in traffic(guard.active.plan, 40, every_s=0)
    ]
    log(other)
    text = words((await http.get("/")).text)
    assert "newest 40 requests, but 40 of them are left out: other vectors or another calibration" in text
    assert "No request was scored with the vectors and the calibration in force (40 with others" in text
    assert "of 40 requests were blocked" in text


async def test_errors_and_fail_open_are_said(http, guard, log):
    records = list(traffic(guard.active.plan, 40, broken=1.0, every_s=0))
    log(
        [
            *records[:30],
            *(
                replace(r, decision=replace(r.decision, action="allow"), outcome="answered")
                for r in records[30:]
            ),
        ]
    )
    text = words((await http.get("/")).text)
    assert "30 because of an error (timeout)" in text
    assert "let through without evaluation (fail-open) 10" in text


async def test_what_others_wrote_is_text(http, guard, log):
    def hostile(record):
        scores = [replace(s, policy=INERT, trait=INERT) for s in record.decision.scores]
        decision = replace(record.decision, policy=INERT, fired=(INERT,), action=INERT, scores=tuple(scores))
        return replace(record, id=INERT, decision=decision, outcome="blocked", error=INERT)

    log(map(hostile, traffic(guard.active.plan, 20, every_s=0)))
    page = await http.get("/", params={"policy": INERT, "promote": INERT, "threshold": "1"})
    assert page.status_code == 200
    assert "<img" not in page.text
    assert INERT in unescape(page.text)


async def test_who_may_see_it(guard, day):
    app = create_app(guard, ServerSettings(keys=KEYS))
    async with browser(app, None, "app", "ann", "boss") as (nobody, asker, ann, boss):
        assert (await nobody.get("/")).headers["location"] == "/login?next=%2F"
        assert (await asker.get("/")).status_code == 403
        assert (await ann.get("/")).status_code == 200
        assert (await boss.get("/")).status_code == 200


async def test_the_page_keeps_to_its_own_files(http, day):
    page = await http.get("/")
    assert not re.search(r"<style|<script(?! src=\"/pages/)| style=| on\w+=", page.text)
    for name in re.findall(r'"/pages/([\w.]+)', page.text):
        assert (await http.get(f"/pages/{name}")).status_code == 200


async def test_without_a_log_the_requests_since_the_start_are_shown():
    with Guard.from_pretrained("demo", plugins=[Unlogged()]) as guard:
        async with asking(create_app(guard, ServerSettings())) as http:
            for _ in range(3):
                await http.post("/v1/chat/completions", json=chat(CRUEL))
            text = words((await http.get("/")).text)
    assert "The policies keep no audit log" in text
    assert "3 of 3 requests were blocked" in text
