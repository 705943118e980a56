"""Tickets over HTTP: who sees and decides what, and how a client gets its answer."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from endpoints import said, script, server
from serving import asking, chat, events

from guardrail.pipeline.exchange import UNUSED
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.app import create_app
from guardrail.serve.keys import Key, sha256
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit, MemoryQueue, tiny_guard

PATH, TICKETS = "/v1/chat/completions", "/v1/guard/tickets"
RIGHTS = {"app": ("ask",), "other": ("ask",), "ann": ("review",), "bob": ("ask", "review")}
KEYS = tuple(Key(name=name, sha256=sha256(f"gr-{name}"), rights=rights) for name, rights in RIGHTS.items())
HELLO = chat([{"role": "user", "content": "Hello there"}], max_tokens=4)
ASKED, WAITING = {"x-guardrail-tags": "ask"}, {"x-guardrail-tags": "wait"}


class Sinks(MemoryAudit):
    """A queue and a log in memory, as plugins."""

    def __init__(self):
        super().__init__()
        self.queue, self.reviews = MemoryQueue(), []

    def reviewed(self, review):
        self.reviews.append(review)

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self]

    @hookimpl
    def guardrail_escalation_sinks(self):
        return [self.queue]


def escalates(tag, **config):
    return {
        "id": tag,
        "trait": "evil",
        "layer": 2,
        "threshold": {"raw": -1e6},
        "when": {"tags": [tag]},
        "message": "No.",
        "action": {"escalate": {"to": "memory-queue", **config}},
    }


@pytest.fixture(scope="module")
def sinks():
    return Sinks()


@pytest.fixture(scope="module")
def other_model():
    """The address of another model, and what it was asked."""
    with server(script(said("Better not."))) as found:
        yield found


@pytest.fixture(scope="module")
def guard(tmp_path_factory, sinks, other_model):
    model = {"to": {"model": {"base_url": other_model[0], "model": "big"}}}
    policies = [escalates("ask"), escalates("wait", wait_s=60), escalates("elsewhere", **model)]
    with tiny_guard(tmp_path_factory.mktemp("guard"), {"policies": policies}, [sinks]) as made:
        yield made


@pytest.fixture(autouse=True)
def empty(sinks):
    sinks.queue.tickets.clear()
    sinks.queue.failing = False


@asynccontextmanager
async def clients(guard, *names, **settings):
    """A client for each key; all of one application."""
    transport = httpx.ASGITransport(create_app(guard, ServerSettings(**{"keys": KEYS} | settings)))
    made = [
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers={"authorization": f"Bearer gr-{name}"}
        )
        for name in names
    ]
    yield made[0] if len(made) == 1 else made
    for http in made:
        await http.aclose()


async def escalated(http):
    """The id of the ticket of a new request."""
    response = await http.post(PATH, json=HELLO, headers=ASKED)
    assert response.json()["choices"][0]["finish_reason"] == "content_filter"
    assert response.json()["guardrail"]["ticket_id"] == response.headers["x-guardrail-ticket-id"]
    return response.headers["x-guardrail-ticket-id"]


async def resolve(http, ticket_id, decision, **more):
    return await http.post(f"{TICKETS}/{ticket_id}/resolve", json={"decision": decision, **more})


async def test_an_approved_prompt_sent_again_is_answered_by_the_model_once(guard, sinks):
    async with clients(guard, "app", "ann") as (app, ann):
        ticket_id = await escalated(app)
        shown = (await app.get(f"{TICKETS}/{ticket_id}")).json()
        assert (shown["state"], shown["policy"], shown["answer"]) == ("pending", "ask", None)
        assert not {"messages", "decision", "resolver"} & set(shown)
        assert (await resolve(ann, ticket_id, "approve", note="fine")).json()["resolver"] == "ann"
        again = {**ASKED, "x-guardrail-ticket": ticket_id}
        first, second = [await app.post(PATH, json=HELLO, headers=again) for _ in range(2)]
        assert first.json()["choices"][0]["finish_reason"] in ("stop", "length")
        assert first.headers["x-guardrail-ticket-id"] == ticket_id
        said = [first.headers.get(f"x-guardrail-{name}") for name in ("action", "policy", "lifted")]
        assert said == ["allow", None, "ask"]
        field = first.json()["guardrail"]
        assert (field["action"], field["policy"], field["lifted"]) == ("allow", None, ["ask"])
        assert (second.headers["x-guardrail-action"], second.headers.get("x-guardrail-lifted")) == (
            "escalate",
            None,
        )
        record = sinks.records[first.headers["x-guardrail-audit-id"]]
        assert (record.decision.action, record.reviewer) == ("allow", "ann")
        assert second.headers["x-guardrail-ticket-id"] != ticket_id
        assert (await app.get(f"{TICKETS}/{ticket_id}")).json()["used"] is not None


@pytest.mark.parametrize("tags", [ASKED, {}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_ticket_that_makes_no_difference_is_a_warning(guard, tags, stream):
    whole = {**tags, "x-guardrail-decision": "1"}
    async with clients(guard, "app", "other") as (app, other):
        tickets = ["made-up", await escalated(other)]
        for ticket_id in tickets:
            given = {**whole, "x-guardrail-ticket": ticket_id}
            response = await app.post(PATH, json={**HELLO, "stream": stream}, headers=given)
            assert UNUSED in response.text
        mine = await escalated(app)
        pending = await app.post(PATH, json=HELLO, headers={**whole, **ASKED, "x-guardrail-ticket": mine})
    assert UNUSED not in pending.text


async def test_a_stream_may_come_back_with_a_ticket_in_its_metadata(guard):
    async with clients(guard, "app", "ann") as (app, ann):
        ticket_id = await escalated(app)
        await resolve(ann, ticket_id, "approve")
        body = {**HELLO, "stream": True, "metadata": {"ticket": ticket_id, "tags": "ask"}}
        response = await app.post(PATH, json=body)
    assert events(response.text)[-1] == "[DONE]"
    assert "content_filter" not in response.text
    said = [response.headers.get(f"x-guardrail-{name}") for name in ("action", "lifted", "ticket-id")]
    assert said == ["allow", "ask", ticket_id]


async def test_an_answer_by_hand_is_marked_and_is_no_refusal(guard):
    async with clients(guard, "app", "ann") as (app, ann):
        ticket_id = await escalated(app)
        await resolve(ann, ticket_id, "answer", answer="Ask a doctor.")
        assert (await app.get(f"{TICKETS}/{ticket_id}")).json()["answer"] == "Ask a doctor."
        again = {**ASKED, "x-guardrail-ticket": ticket_id}
        response = await app.post(PATH, json=HELLO, headers=again)
    choice = response.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Ask a doctor.", "stop")
    assert response.headers["x-guardrail-answered-by"] == "person"
    assert response.json()["guardrail"]["answered_by"] == "person"


@pytest.mark.parametrize("stream", [False, True])
async def test_another_model_answers_and_is_named(guard, other_model, stream):
    async with clients(guard, "app") as app:
        response = await app.post(
            PATH, json={**HELLO, "stream": stream}, headers={"x-guardrail-tags": "elsewhere"}
        )
    assert response.headers["x-guardrail-answered-by"] == "model:big"
    assert "Better not." in response.text
    assert '"finish_reason":"stop"' in response.text.replace(" ", "")
    assert "model:big" in response.text
    assert other_model[1].bodies[-1]["messages"] == HELLO["messages"]


async def test_the_second_reviewer_gets_409_and_the_first_is_on_record(guard, sinks):
    async with clients(guard, "app", "ann", "bob") as (app, *people):
        ticket_id = await escalated(app)
        found = await asyncio.gather(*(resolve(http, ticket_id, "deny") for http in people))
        late = await resolve(people[0], ticket_id, "approve")
    assert sorted(response.status_code for response in found) == [200, 409]
    assert late.json()["error"]["code"] == "ticket_already_resolved"
    winner = next(response.json()["resolver"] for response in found if response.status_code == 200)
    assert f"denied by {winner}" in late.json()["error"]["message"]
    assert [r.reviewer for r in sinks.reviews if r.ticket_id == ticket_id and r.state == "denied"] == [winner]


async def test_nobody_sees_or_decides_what_is_not_theirs(guard, sinks):
    async with clients(guard, "app", "other", "ann") as (app, other, ann):
        ticket_id = await escalated(app)
        assert (await other.get(f"{TICKETS}/{ticket_id}")).status_code == 404
        assert (await app.get(f"{TICKETS}/none")).json()["error"]["code"] == "ticket_not_found"
        assert (await ann.get(f"{TICKETS}/{ticket_id}")).json()["messages"][0]["content"] == "Hello there"
        for http in (app, other):
            assert (await http.get(TICKETS)).status_code == 403
            assert (await resolve(http, ticket_id, "approve")).status_code == 403
        assert (await resolve(ann, "none", "approve")).status_code == 404
        refused = [(r.ticket_id, r.reviewer, r.reason) for r in sinks.reviews if r.state == "refused"][-7:]
        (listed,) = (await ann.get(TICKETS, params={"state": "pending"})).json()["data"]
    assert (listed["id"], listed["client"], listed["state"]) == (ticket_id, "app", "pending")
    assert refused == [
        (ticket_id, "other", "ticket_not_found"),
        ("none", "app", "ticket_not_found"),
        ("", "app", "insufficient_permissions"),
        (ticket_id, "app", "insufficient_permissions"),
        ("", "other", "insufficient_permissions"),
        (ticket_id, "other", "insufficient_permissions"),
        ("none", "ann", "ticket_not_found"),
    ]


async def test_a_ticket_that_another_reviewer_holds_is_not_decided(guard, sinks):
    async with clients(guard, "app", "ann", "bob") as (app, ann, bob):
        ticket_id = await escalated(app)
        guard.tickets.hold(ticket_id, "bob", 60)
        late = await resolve(ann, ticket_id, "approve")
        assert (late.status_code, late.json()["error"]["code"]) == (409, "ticket_held")
        assert (await resolve(bob, ticket_id, "deny")).status_code == 200
    found = [(r.state, r.reviewer, r.reason) for r in sinks.reviews if r.ticket_id == ticket_id]
    assert found == [("refused", "ann", "ticket_held"), ("denied", "bob", "")]


async def test_a_long_list_says_that_there_is_more(guard):
    async with clients(guard, "app", "ann") as (app, ann):
        first, _ = await escalated(app), await escalated(app)
        page = (await ann.get(TICKETS, params={"limit": 1})).json()
    assert ([row["id"] for row in page["data"]], page["has_more"]) == ([first], True)


async def test_without_keys_nobody_sees_or_decides_what_is_not_theirs(guard):
    async with clients(guard, "app") as app, clients(guard, "app", keys=()) as http:
        ticket_id, another = await escalated(http), await escalated(app)
        assert (await http.get(f"{TICKETS}/{ticket_id}")).json()["state"] == "pending"
        assert (await http.get(f"{TICKETS}/{another}")).status_code == 404
        for refused in (await http.get(TICKETS), await resolve(http, ticket_id, "approve")):
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "keys_required")
            assert "Hello there" not in refused.text


@pytest.mark.parametrize(
    ("settings", "metrics", "reload"),
    [({}, 404, 200), ({"host": "0.0.0.0"}, 403, 403), ({"host": "0.0.0.0", "open_metrics": True}, 404, 403)],
)
async def test_without_keys_only_this_machine_may_do_more_than_ask(guard, settings, metrics, reload):
    async with clients(guard, "app", keys=(), **settings) as http:
        # this guard counts nothing
        assert (await http.get("/metrics")).status_code == metrics
        assert (await http.post("/admin/reload")).status_code == reload
        assert (await http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "answer"},
        {"decision": "answer", "answer": " "},
        {"decision": "approve", "answer": "Yes."},
        {"decision": "approve", "resolver": "bob"},
    ],
)
async def test_a_decision_that_makes_no_sense_is_refused(guard, body):
    async with clients(guard, "app", "ann") as (app, ann):
        ticket_id = await escalated(app)
        response = await ann.post(f"{TICKETS}/{ticket_id}/resolve", json=body)
        assert response.status_code == 400
        assert (await app.get(f"{TICKETS}/{ticket_id}")).json()["state"] == "pending"


@pytest.mark.parametrize("params", [{"wait_s": "x"}, {"wait_s": 1e9}, {"wait_s": -1}, {"wait_s": "nan"}])
async def test_a_wait_that_makes_no_sense_is_refused(guard, params):
    async with clients(guard, "app") as app:
        assert (await app.get(f"{TICKETS}/none", params=params)).status_code == 400


async def test_a_client_can_wait_for_its_ticket(guard):
    async with clients(guard, "app", "ann") as (app, ann):
        ticket_id = await escalated(app)
        assert (await app.get(f"{TICKETS}/{ticket_id}", params={"wait_s": 0.05})).json()["state"] == "pending"
        waits = asyncio.create_task(app.get(f"{TICKETS}/{ticket_id}", params={"wait_s": 60}))
        await asyncio.sleep(0.2)
        await resolve(ann, ticket_id, "deny")
        assert (await asyncio.wait_for(waits, 20)).json()["state"] == "denied"


async def test_requests_that_wait_for_a_person_take_no_room_from_others(guard, sinks):
    async with clients(guard, "app", "ann", queue=1) as (app, ann):
        waits = []
        for count in (1, 2):
            waits.append(asyncio.create_task(app.post(PATH, json=HELLO, headers=WAITING)))
            while guard.tickets.waiting < count:
                await asyncio.sleep(0.01)
        assert (await app.post(PATH, json=HELLO)).status_code == 200
        for waiting in sinks.queue.pending():
            assert (await resolve(ann, waiting.id, "approve")).status_code == 200
        answers = await asyncio.gather(*waits)
    assert {answer.json()["choices"][0]["finish_reason"] for answer in answers} <= {"stop", "length"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_ends_a_wait_names_the_ticket(guard, sinks, stream):
    async with clients(guard, "app", "ann", deadline_s=1.0) as (app, ann):
        late = await app.post(PATH, json={**HELLO, "stream": stream}, headers=WAITING)
        (waiting,) = sinks.queue.pending()
        assert (late.status_code, late.headers["x-guardrail-ticket-id"]) == (504, waiting.id)
        error = late.json()["error"]
        assert (error["code"], error["guardrail"]["ticket_id"]) == ("deadline_exceeded", waiting.id)
        assert "no person decided" in error["message"]
        assert late.headers["x-guardrail-audit-id"]
        await resolve(ann, waiting.id, "approve")
        again = await app.post(PATH, json=HELLO, headers={**WAITING, "x-guardrail-ticket": waiting.id})
    assert (again.status_code, again.headers["x-guardrail-lifted"]) == (200, "wait")


@pytest.mark.parametrize(("deadline_s", "said"), [(30.0, True), (300.0, False)])
async def test_policies_that_wait_longer_than_the_deadline_are_named(guard, deadline_s, said, caplog):
    app = create_app(guard, ServerSettings(deadline_s=deadline_s))
    async with app.router.lifespan_context(app), asking(app) as http:
        await asyncio.sleep(0)
        warnings = (await http.post("/admin/reload")).json()["warnings"]
    expected = "wait: may wait 60 s for a person, but requests end after 30 s"
    assert (expected in warnings) == (expected in caplog.messages) == said


async def test_a_client_that_leaves_waits_for_nobody(guard):
    async with clients(guard, "app") as app:
        wait = asyncio.create_task(app.post(PATH, json=HELLO, headers=WAITING))
        while guard.tickets.waiting < 1:
            await asyncio.sleep(0.01)
        wait.cancel()
        async with asyncio.timeout(20):
            while guard.tickets.waiting:
                await asyncio.sleep(0.01)


async def test_a_sink_that_is_down_is_an_error_to_readers_and_a_block_to_clients(guard, sinks):
    sinks.queue.failing = True
    async with clients(guard, "app", "ann") as (app, ann):
        response = await app.post(PATH, json=HELLO, headers={**ASKED, "x-guardrail-decision": "1"})
        for found in (await ann.get(TICKETS), await app.get(f"{TICKETS}/t")):
            assert (found.status_code, found.json()["error"]["code"]) == (503, "tickets_unavailable")
            assert found.headers["retry-after"] == "1"
    assert response.json()["choices"][0]["message"]["content"] == "No."
    assert "block takes over: escalation failed" in response.text
