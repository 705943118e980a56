"""The review page: what it shows, what a decision does, who is refused and that this is on record."""

import asyncio
import html
import time
from dataclasses import replace

import pytest
from serving import chat
from visiting import KEYS, browser, hidden, login

from guardrail.audit import history, verify
from guardrail.files.records import utc_in
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.app import create_app
from guardrail.serve.pages.bars import bars
from guardrail.serve.pages.earlier import MOST
from guardrail.serve.refusals import ONE_BY_ONE, Refusals
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryQueue, tiny_guard
from guardrail.types import Score

EVIL = '<script>document.title="pwned"</script><img src=x onerror=alert(1)>{{ 7*7 }}'
API = "/v1/guard/tickets"
APP = {"authorization": "Bearer gr-app", "x-guardrail-conversation": "c-1"}


class Queue:
    def __init__(self):
        self.queue = MemoryQueue()

    @hookimpl
    def guardrail_escalation_sinks(self):
        return [self.queue]


@pytest.fixture(scope="module")
def queue():
    return Queue()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "audit.sqlite"


@pytest.fixture(scope="module")
def app(tmp_path_factory, queue, log):
    policy = {"id": "to-a-person", "trait": "evil", "layer": 2, "threshold": {"raw": -1e6}, "message": "No."}
    policy["action"] = {"escalate": {"to": "memory-queue"}}
    quiet = {**policy, "id": "watching", "mode": "shadow", "threshold": {"raw": 1e6}, "action": "block"}
    policies = {"policies": [policy, quiet], "audit": {"sqlite": str(log)}}
    with tiny_guard(tmp_path_factory.mktemp("guard"), policies, [queue]) as made:
        yield create_app(made, ServerSettings(keys=KEYS))


@pytest.fixture(autouse=True)
def empty(queue):
    queue.queue.tickets.clear()


async def ask(http, text="Hello there", **headers):
    """The id of the ticket of a new request."""
    body = chat([{"role": "user", "content": text}], max_tokens=4)
    return (await http.post("/v1/chat/completions", json=body, headers={**APP, **headers})).headers[
        "x-guardrail-ticket-id"
    ]


async def decide(http, ticket_id, decision, **fields):
    """Open the ticket's page and send its form."""
    path = f"/review/{ticket_id}"
    form = hidden((await http.get(path)).text, path)
    return await http.post(path, data={**form, "note": "", "answer": "", "decision": decision, **fields})


def reviews(log, ticket_id):
    """What the audit log says about a ticket: states and reasons, who."""
    found = [one for one in history(log) if getattr(one, "ticket_id", None) == ticket_id]
    return [(one.state, one.reviewer, one.reason) for one in found]


@pytest.mark.parametrize(
    ("decision", "fields", "state"),
    [
        ("approve", {}, "approved"),
        ("deny", {}, "denied"),
        ("answer", {"answer": "Ask\r\na doctor."}, "answered"),
    ],
)
async def test_a_decision_is_taken_and_the_reviewer_on_record(app, queue, log, decision, fields, state):
    async with browser(app, "ann") as ann:
        ticket_id = await ask(ann)
        assert ticket_id in (await ann.get("/review")).text
        done = await decide(ann, ticket_id, decision, note=EVIL, **fields)
        assert (done.status_code, done.headers["location"]) == (303, f"/review?done={ticket_id}")
        listed = await ann.get(done.headers["location"])
        assert "You have" in listed.text
        assert "No prompt waits" in listed.text
        ticket = queue.queue.get(ticket_id)
        assert (ticket.state, ticket.resolver, ticket.note) == (state, "ann", EVIL)
        assert ticket.answer == ("Ask\na doctor." if state == "answered" else None)
        assert reviews(log, ticket_id) == [(state, "ann", "")]
        shown = await ann.get(f"/review/{ticket_id}")
        assert html.escape(EVIL, quote=False).replace('"', "&#34;") in shown.text
        assert "Decide" not in shown.text


async def test_a_ticket_shows_conversation_scores_policy_and_what_came_before(app):
    async with browser(app, "ann") as ann:
        await ask(ann, "The first")
        await ask(ann, "Elsewhere", **{"x-guardrail-conversation": "c-2"})
        ticket_id = await ask(ann, "The second")
        page = (await ann.get(f"/review/{ticket_id}")).text
    assert "The second" in page
    assert "The first" not in page
    assert "<strong>to-a-person</strong>" in page
    assert "watching" in page
    assert "shadow" in page
    assert page.count('<svg class="bar"') == 2
    assert 'aria-label="score' in page
    assert "Asked by</dt><dd>app" in page
    rows = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert rows.count("<tr>") >= 1
    assert "escalated" in rows


async def test_a_long_conversation_shows_the_requests_right_before_the_ticket(app):
    async with browser(app, "ann") as ann:
        for number in range(MOST + 1):
            own = {"x-guardrail-conversation": "c-long"}
            await ask(ann, f"Number {number}", **own)
            await ask(ann, "The same", **{"x-guardrail-conversation": f"c-{number}"})
        ticket_id = await ask(ann, "The same", **own)
        later = await ask(ann, "The same", **own)
        await decide(ann, ticket_id, "deny")
        for one in (ticket_id, later):
            rows = (await ann.get(f"/review/{one}")).text.partition("Earlier in this conversation")[2]
            assert rows.count("<tr>") == MOST + 1, "with the head"
            assert "Older requests are not shown" in rows


async def test_what_people_wrote_is_never_markup(app):
    async with browser(app, "ann") as ann:
        ticket_id = await ask(ann, EVIL)
        for path in ("/review", f"/review/{ticket_id}"):
            page = (await ann.get(path)).text
            assert "<script" not in page
            assert "<img" not in page
            assert "&lt;script&gt;" in page


async def test_who_opens_a_ticket_holds_it_until_they_give_it_back(app, log):
    async with browser(app, "ann", "bob") as (ann, bob):
        ticket_id = await ask(ann)
        path = f"/review/{ticket_id}"
        mine = await bob.get(path)
        theirs = (await ann.get(path)).text
        assert "<strong>bob decides on this ticket</strong>" in theirs
        assert 'name="decision"' not in theirs
        assert "bob decides on it now" in (await ann.get("/review")).text
        await bob.post(f"{path}/back", data=hidden(mine.text, f"{path}/back"))
        assert 'name="decision"' in (await ann.get(path)).text
        assert "ann decides" in (await bob.get(path)).text


async def test_a_ticket_that_another_holds_is_refused_and_what_was_written_is_shown(app, queue, log):
    async with browser(app, "ann", "bob") as (ann, bob):
        ticket_id = await ask(ann)
        path = f"/review/{ticket_id}"
        form = hidden((await ann.get(path)).text, path)
        # ann's time runs out, and bob opens it
        ticket = queue.queue.tickets[ticket_id]
        queue.queue.tickets[ticket_id] = replace(ticket, held_until=utc_in(-1))
        await bob.get(path)
        late = await ann.post(
            path, data={**form, "decision": "answer", "answer": "My long answer", "note": ""}
        )
        assert late.status_code == 409
        assert "bob decides on this ticket now" in late.text
        assert "My long answer" in late.text
        assert queue.queue.get(ticket_id).state == "pending"
        assert reviews(log, ticket_id) == [("refused", "ann", "ticket_held")]


async def test_of_two_reviewers_one_decides(app, queue, log):
    async with browser(app, "ann", "ann") as (first, second):
        ticket_id = await ask(first)
        found = await asyncio.gather(*(decide(http, ticket_id, "deny") for http in (first, second)))
    assert sorted(answer.status_code for answer in found) == [303, 409]
    # whichever is written first
    assert sorted(reviews(log, ticket_id)) == [
        ("denied", "ann", ""),
        ("refused", "ann", "ticket_already_resolved"),
    ]


async def test_without_a_login_or_the_right_nobody_decides_and_it_is_on_record(app, queue, log):
    async with browser(app, None, "app", "ann") as (nobody, client, ann):
        ticket_id = await ask(ann)
        path = f"/review/{ticket_id}"
        form = {**hidden((await ann.get(path)).text, path), "decision": "approve"}
        assert (await nobody.post(path, data=form)).status_code == 401
        assert (await client.post(path, data=form)).status_code == 403
        assert (await client.get(path)).status_code == 403
        assert queue.queue.get(ticket_id).state == "pending"
        assert reviews(log, ticket_id) == [
            ("refused", "", "login_needed"),
            *[("refused", "app", "insufficient_permissions")] * 2,
        ]


async def test_a_replayed_or_foreign_form_is_refused_and_on_record(app, queue, log):
    async with browser(app, "ann", "bob") as (ann, bob):
        ticket_id, another = await ask(ann), await ask(ann, "Another")
        path = f"/review/{ticket_id}"
        form = {**hidden((await ann.get(path)).text, path), "decision": "deny", "note": "", "answer": ""}
        assert (await bob.post(path, data=form)).status_code == 403
        assert (await ann.post(f"/review/{another}", data=form)).status_code == 403
        assert (await ann.post(path, data={"decision": "deny"})).status_code == 403
        assert (await ann.post(path, data=form)).status_code == 303
        assert (await ann.post(path, data=form)).status_code == 409
        assert queue.queue.get(another).state == "pending"
        assert reviews(log, ticket_id) == [
            ("refused", "bob", "form_not_valid"),
            ("refused", "ann", "form_not_valid"),
            ("denied", "ann", ""),
            ("refused", "ann", "form_replayed"),
        ]
        assert reviews(log, another) == [("refused", "ann", "form_not_valid")]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"decision": "answer"}, "Write the answer"),
        ({"decision": "answer", "answer": " \n"}, "Write the answer"),
        ({"decision": "approve", "answer": "Yes."}, "You wrote an answer"),
        ({"decision": "maybe"}, "Choose one"),
        ({"decision": "deny", "note": "x" * 10_001}, "at most"),
    ],
)
async def test_a_form_that_makes_no_sense_comes_back_with_what_was_written(app, queue, log, fields, problem):
    async with browser(app, "ann") as ann:
        ticket_id = await ask(ann)
        answer = await decide(ann, ticket_id, **fields)
        assert answer.status_code == 400
        assert problem in answer.text
        assert fields.get("answer", "").strip() in answer.text
        assert queue.queue.get(ticket_id).state == "pending"
        assert reviews(log, ticket_id) == []
        path = f"/review/{ticket_id}"
        again = {**hidden(answer.text, path), "decision": "deny", "answer": "", "note": ""}
        assert (await ann.post(path, data=again)).status_code == 303


async def test_a_ticket_that_is_not_there_and_a_queue_that_is_down_are_pages_that_say_so(app, queue):
    async with browser(app, "ann") as ann:
        assert (await ann.get("/review/none")).status_code == 404
        queue.queue.failing = True
        answer = await ann.get("/review")
        queue.queue.failing = False
    assert (answer.status_code, answer.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "memory-queue" in answer.text


async def test_attempts_without_a_login_or_a_key_are_on_record_and_do_not_fill_the_log(app, log):
    refusals = app.state.service.refusals
    await refusals.end()
    before = len(list(history(log)))
    async with browser(app, None) as http:
        wrong = {"authorization": "Bearer gr-wrong"}
        assert (await http.post(f"{API}/t-1/resolve", json={"decision": "approve"})).status_code == 401
        assert (await http.get(f"{API}/{'x' * 1000}", headers=wrong)).status_code == 401
        assert (await http.get("/v1/models", headers=wrong)).status_code == 401
        for _ in range(ONE_BY_ONE + 5):
            assert (await http.get(API, headers=wrong)).status_code == 401
        assert (await http.post("/review/t-2", data={"decision": "approve"})).status_code == 401
    async with browser(app, "ann") as ann:
        assert (await ann.post("/review/t-3", data={"token": "x"})).status_code == 403
    alone = [(one.ticket_id, one.reviewer, one.reason, one.times) for one in list(history(log))[before:]]
    assert len(alone) == ONE_BY_ONE + 1
    assert alone[:3] == [
        ("t-1", "", "invalid_api_key", 1),
        ("x" * 64, "", "invalid_api_key", 1),
        ("", "", "invalid_api_key", 1),
    ]
    assert alone[-1] == ("t-3", "ann", "form_not_valid", 1), "who is known is on record in any case"
    await refusals.end()
    rest = [(one.reviewer, one.reason, one.times) for one in list(history(log))[before + len(alone) :]]
    assert rest == [("", "invalid_api_key", 7), ("", "login_needed", 1)]
    assert verify(log).ok


async def test_a_key_that_may_not_look_at_tickets_is_on_record_and_does_not_fill_the_log(app, log):
    refusals = app.state.service.refusals
    await refusals.end()
    before = len(list(history(log)))
    async with browser(app, "app") as http:
        for path in ("/review", "/review/t-1", API, f"{API}/t-1"):
            assert (await http.get(path, headers={"x-api-key": "gr-app"})).status_code in (403, 404)
        for _ in range(ONE_BY_ONE):
            assert (await http.get(API, headers={"x-api-key": "gr-app"})).status_code == 403
    async with browser(app, None) as nobody:
        assert (await nobody.get("/review")).status_code == 303, "who only has to log in was refused nothing"
    found = [(one.ticket_id, one.reviewer, one.reason, one.times) for one in list(history(log))[before:]]
    assert len(found) == ONE_BY_ONE
    assert found[:5] == [
        ("", "app", "insufficient_permissions", 1),
        ("t-1", "app", "insufficient_permissions", 1),
        ("", "app", "insufficient_permissions", 1),
        ("t-1", "app", "ticket_not_found", 1),
        ("", "app", "insufficient_permissions", 1),
    ]
    await refusals.end()
    (rest,) = list(history(log))[before + ONE_BY_ONE :]
    assert (rest.reviewer, rest.times) == ("app", 4)


async def test_the_number_of_further_attempts_is_on_record_once_the_minute_is_over(app, log):
    refusals = Refusals(app.state.service.guard.tickets, most=1, window_s=0.5)
    before = len(list(history(log)))
    for _ in range(9):
        await refusals.note("t", "", "login_needed")
    until = time.monotonic() + 10
    while len(found := list(history(log))[before:]) < 2 and time.monotonic() < until:
        await asyncio.sleep(0.05)
    assert [(one.ticket_id, one.times) for one in found] == [("t", 1), ("", 8)]


def score(value, threshold, fired=False):
    return Score(
        policy="p", trait="evil", layer=4, score=value, threshold=threshold, fired=fired, mode="enforce"
    )


def test_bars_keep_the_order_of_numbers_and_stay_inside():
    for value, threshold in ((3.0, 2.0), (-1.0, 2.0), (1.0, -2.0), (0.0, 0.0), (-3e9, 1e9)):
        (bar,) = bars([score(value, threshold)])
        end = bar.left + bar.width if value > 0 else bar.left
        places = {0.0: bar.zero, value: end, threshold: bar.limit}
        assert sorted(places) == sorted(places, key=lambda number: places[number])
        assert all(0 <= place <= 100 for place in places.values())
    (unknown,) = bars([score(float("nan"), 2.0)])
    assert not unknown.drawn
    assert "unknown" in unknown.said
    assert [bar.score.fired for bar in bars([score(0, 1), score(2, 1, fired=True)])] == [True, False]


async def test_the_form_of_a_login_that_ended_is_not_lost_on_the_way(app):
    async with browser(app, "ann") as ann:
        ticket_id = await ask(ann)
        ann.cookies.clear()
        assert (await ann.get(f"/review/{ticket_id}")).headers["location"].endswith(f"review%2F{ticket_id}")
        done = await login(ann, "gr-ann", f"/review/{ticket_id}")
        assert done.headers["location"] == f"/review/{ticket_id}"
