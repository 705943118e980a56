"""Reloading by request and by signal: what it answers, and that the last good policies stay."""

import asyncio
import hashlib
import json
import os
import signal

import pytest
from serving import asking
from tiny import NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.app import create_app
from guardrail.serve.keys import Key
from guardrail.serve.reload import reload_on_hangup
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("policies")


@pytest.fixture(scope="module")
def log():
    class Changes(MemoryAudit):
        def changed(self, change):
            if self.failing:
                raise OSError("no space left on device")

    return Changes()


@pytest.fixture(scope="module")
def made(folder, log):
    class Plugin:
        @hookimpl
        def guardrail_audit_sinks(self):
            return [log]

    model = tiny_model()
    write_vectors(folder, model)
    with Guard(model, TOKENIZER, write(folder, policy(threshold=NEVER)), plugins=[Plugin()]) as made:
        yield made


@pytest.fixture
async def http(folder, made):
    write(folder, policy(threshold=NEVER))
    assert made.reload()
    async with asking(create_app(made, ServerSettings())) as client:
        yield client


def write(folder, *rules, **keys):
    path = folder / "policies.json"
    path.write_text(json.dumps(policies(folder, *rules, **keys), indent=1))
    return path


async def test_a_reload_answers_with_the_hashes_before_and_after(http, folder, made):
    before = made.active.plan
    write(folder, policy(threshold=NEVER), policy(id="open", threshold=NEVER, on_error="allow"))
    answer = await http.post("/admin/reload")
    found, after = answer.json(), made.active.plan
    assert answer.status_code == 200
    assert found["before"]["policies"] == before.policy_sha256 != after.policy_sha256
    assert found["after"] == {
        "policies": after.policy_sha256,
        "vectors": after.vectors_sha256,
        "calibration": after.calibration_sha256,
    }
    assert any("fails open" in warning for warning in found["warnings"])
    assert made.check("hello").decision.policy_sha256 == found["after"]["policies"]


async def test_a_wrong_file_is_answered_with_every_problem_and_its_place(http, folder, made):
    before = made.active
    path = write(folder, policy(threshold=NEVER, action="blok"), policy(id="q", trait="nobody"))
    answer = await http.post("/admin/reload")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "policies_refused")
    assert len(error["problems"]) == 2
    assert all(problem.startswith(f"{path}:") for problem in error["problems"])
    assert "did you mean `block`" in error["problems"][0]
    assert made.active is before
    assert answer.json()["in_force"]["policies"] == before.sha256


async def test_a_file_that_is_gone_is_refused(http, folder, made):
    (folder / "policies.json").unlink()
    answer = await http.post("/admin/reload")
    assert answer.status_code == 422
    assert "No such file" in answer.json()["error"]["problems"][0]


async def test_what_needs_a_restart_says_so(http, folder, tmp_path):
    write(folder, policy(threshold=NEVER), audit={"jsonl": str(tmp_path / "audit.jsonl")})
    answer = await http.post("/admin/reload")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "restart_needed")
    assert "start it again" in answer.json()["error"]["message"]


async def test_a_reload_that_cannot_be_recorded_is_not_made(http, folder, made, log):
    before = made.active
    write(folder, policy(id="new", threshold=NEVER))
    log.failing = True
    answer = await http.post("/admin/reload")
    log.failing = False
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_recorded")
    assert made.active is before
    assert (await http.post("/admin/reload")).status_code == 200


async def test_only_keys_with_the_right_may_reload(made):
    given = [
        Key(name=r, sha256=hashlib.sha256(r.encode()).hexdigest(), rights=(r,)) for r in ("ask", "admin")
    ]
    app = create_app(made, ServerSettings(keys=tuple(given)))
    for key, status in (("", 401), ("wrong", 401), ("ask", 403), ("admin", 200)):
        async with asking(app, authorization=f"Bearer {key}") as http:
            assert (await http.post("/admin/reload")).status_code == status, key


async def test_a_hangup_reloads(folder, made):
    app = create_app(made, ServerSettings())
    write(folder, policy(id="hung-up", threshold=NEVER))
    reload_on_hangup(app.state.service)
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(300):
            if made.active.plan.rules[0].id == "hung-up":
                break
            await asyncio.sleep(0.01)
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
    assert made.active.plan.rules[0].id == "hung-up"
