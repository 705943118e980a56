"""What `/healthz` and `/readyz` say, and when."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
import torch
from serving import asking, chat
from tiny import NEVER, guard, policies, policy, rewatch

from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve import health, warm_up
from guardrail.serve.app import create_app
from guardrail.serve.metrics import Metrics
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit


class Plugin:
    """An audit log on a disk that may be full, and a scorer that may fail."""

    name = "shouting"

    def __init__(self):
        self.audit, self.failing, self.asked = MemoryAudit(), False, 0

    def score(self, messages):
        self.asked += 1
        if self.failing:
            raise RuntimeError("out of memory")
        return 0.0

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.audit]


@pytest.fixture
def plugin():
    return Plugin()


@pytest.fixture
def made(tmp_path, plugin, monkeypatch):
    """A guard of a tiny model. Warm-up checks may follow one another at once."""
    monkeypatch.setattr(warm_up, "RETRY_S", 0.0)
    rule = policy(trait="shouting", threshold=0.5)
    with guard(tmp_path, rule, options={"plugins": [plugin, Metrics()]}) as made:
        yield made


@asynccontextmanager
async def server(made, **settings):
    app = create_app(made, ServerSettings(**settings))
    async with asking(app) as http:
        yield http, app.state.service
    await app.state.service.warm_up.end()


async def until(http, status, tries=200):
    """The answer of /readyz, once it has this status."""
    for _ in range(tries):
        answer = await http.get("/readyz")
        if answer.status_code == status:
            return answer.json()
        await asyncio.sleep(0.01)
    pytest.fail(f"/readyz still answers {answer.status_code}: {answer.text}")


async def test_a_server_is_ready_once_every_policy_was_asked(made, plugin):
    async with server(made) as (http, _):
        first = await http.get("/readyz")
        assert (first.status_code, first.json()["ready"]) == (503, False)
        assert first.json()["problems"] == ["the first warm-up check has not ended yet"]
        found = await until(http, 200)
        plan = made.active.plan
        assert (found["ready"], found["problems"], plugin.asked) == (True, [], 1)
        assert found["policy_sha256"] == plan.policy_sha256 == made.check("hello").decision.policy_sha256
        assert found["vectors_sha256"] == plan.vectors_sha256
        assert found["fingerprint"] == made.engine.fingerprint.weights


async def test_looking_every_second_costs_no_further_check(made, plugin):
    async with server(made) as (http, _):
        await until(http, 200)
        for _ in range(20):
            assert (await http.get("/readyz")).status_code == 200
    assert plugin.asked == 1


async def test_after_an_error_the_server_is_checked_again_and_recovers(made, plugin):
    async with server(made) as (http, _):
        await until(http, 200)
        plugin.failing = True
        assert made.check("hello").decision.status == "error"
        problems = (await until(http, 503))["problems"]
        assert problems[0] == "scorer `shouting` failed: RuntimeError"
        plugin.failing = False
        await until(http, 200)


async def test_a_model_that_is_out_of_memory_blocks_is_counted_and_recovers(made, plugin):
    full = threading.Event()

    def hook(module, arguments, output):
        if full.is_set():
            raise torch.OutOfMemoryError("CUDA out of memory")

    made.engine.blocks[0].register_forward_hook(hook)
    rewatch(made)
    async with server(made) as (http, _):
        await until(http, 200)
        full.set()
        answer = await http.post("/v1/chat/completions", json=chat())
        assert (answer.status_code, answer.json()["choices"][0]["finish_reason"]) == (200, "content_filter")
        assert answer.headers["x-guardrail-action"] == "block"
        assert answer.headers["x-guardrail-status"] == "error"
        problems = (await until(http, 503))["problems"]
        assert "OutOfMemoryError" in problems[0]
        page = (await http.get("/metrics")).text
        assert 'guardrail_errors_total{error="OutOfMemoryError"} 1.0' in page
        assert "guardrail_ready 0.0" in page
        full.clear()
        await until(http, 200)
        assert (await http.post("/v1/chat/completions", json=chat())).headers["x-guardrail-action"] == "allow"


async def test_a_full_disk_is_seen_at_once_and_recovers_without_requests(made, plugin):
    async with server(made) as (http, _):
        await until(http, 200)
        plugin.audit.failing = True
        answer = await http.post("/v1/chat/completions", json=chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "guardrail_error")
        assert "no space left" not in answer.text
        problems = (await http.get("/readyz")).json()["problems"]
        assert "audit records cannot be written" in problems[0]
        plugin.audit.failing = False
        await until(http, 200)


async def test_reloaded_policies_count_as_the_last_until_they_were_checked(
    made, plugin, tmp_path, monkeypatch
):
    async with server(made) as (http, service):
        await until(http, 200)
        held, checks = threading.Event(), service.guard.warm_up
        monkeypatch.setattr(made, "warm_up", lambda: (held.wait(10), checks())[1])
        plugin.failing = True
        assert made.reload()
        assert [(await http.get("/readyz")).status_code for _ in range(3)] == [200] * 3
        held.set()
        await until(http, 503)


async def test_a_server_that_shuts_down_is_alive_and_not_ready(made):
    async with server(made) as (http, service):
        await until(http, 200)
        await service.delivery.drain(0.0)
        assert (await http.get("/readyz")).json()["problems"] == ["the server is shutting down"]
        assert (await http.get("/healthz")).json() == {"alive": True, "problem": None}


async def test_a_guard_that_was_closed_is_dead(made):
    async with server(made) as (http, _):
        made.close()
        for path in ("/healthz", "/readyz"):
            answer = await http.get(path)
            assert answer.status_code == 503
            assert "the model's worker has ended" in answer.text


async def test_a_model_that_hangs_is_dead_and_one_that_works_is_not(made, monkeypatch):
    monkeypatch.setattr(health, "STUCK_S", 0.2)
    async with server(made, deadline_s=0.1) as (http, _):
        end, begun = threading.Event(), threading.Event()
        job = made._driver.worker.submit(lambda _: (begun.set(), end.wait(10)))
        begun.wait(10)
        assert (await http.get("/healthz")).status_code == 200
        await asyncio.sleep(0.4)
        answer = await http.get("/healthz")
        end.set()
        job.result()
        assert answer.status_code == 503
        assert "worked on one request" in answer.json()["problem"]


async def test_health_needs_no_body_no_key_and_no_place_in_the_server(guard):
    async with server(guard, queue=1) as (http, service):
        service.delivery.inside = 1
        assert (await http.post("/v1/chat/completions", json=chat())).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        await until(http, 200)


async def test_policies_that_fail_open_and_failed_reloads_are_shown(tmp_path):
    import json

    from tiny import TOKENIZER, write_vectors

    from guardrail import Guard
    from guardrail.testing import tiny_model

    model = tiny_model()
    write_vectors(tmp_path, model)
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(policies(tmp_path, policy(threshold=NEVER, on_error="allow"))))
    with Guard(model, TOKENIZER, path) as opened:
        async with server(opened) as (http, _):
            found = await until(http, 200)
            assert (found["fail_open"], found["reload_failing"]) == (True, False)
            path.write_text("version: [")
            assert not opened.reload()
            assert (await until(http, 200))["reload_failing"] is True


@pytest.mark.parametrize(("error", "failing"), [(None, 0), (ConfigError("no keys"), 1)])
async def test_the_page_of_metrics_says_that_the_file_of_keys_is_wrong(made, error, failing):
    async with server(made) as (http, service):
        service.keys.error = error
        assert f"guardrail_keys_failing {failing}.0" in (await http.get("/metrics")).text
