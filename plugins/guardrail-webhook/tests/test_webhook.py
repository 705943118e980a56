import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from guardrail_webhook import Webhook, WebhookConfig
from pydantic import ValidationError

from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import Action, ActionContext, Answer, Otherwise, Retry
from guardrail.testing import decision, tiny_guard
from guardrail.types import STOP, Message

SECRET = Message("user", "my secret plan")


class Service:
    """A real HTTP service on this machine that answers what it is told to."""

    def __init__(self):
        self.seen = []
        self.status, self.body, self.delay, self.drip = 200, b'{"answer": "deny"}', 0.0, 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.seen.append((dict(self.headers), json.loads(body)))
                time.sleep(service.delay)
                self.send_response(service.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(service.body)))
                self.end_headers()
                self.answer()

            def answer(self):
                try:
                    step = 1 if service.drip else max(1, len(service.body))
                    for i in range(0, len(service.body), step):
                        self.wfile.write(service.body[i : i + step])
                        self.wfile.flush()
                        time.sleep(service.drip)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *failure):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service():
    with Service() as service:
        yield service


def respond(service, policys=None, **config):
    context = ActionContext(
        decision=decision("webhook"),
        messages=(SECRET,),
        policy="ask",
        message=policys,
        attempt=0,
        complete=lambda messages: "",
    )
    return Webhook().respond(WebhookConfig(url=service.url, **config), context)


def test_the_installed_package_is_an_action_once_it_is_enabled():
    assert "webhook" not in Plugins().actions
    plugins = Plugins().enabled(["webhook"])
    assert isinstance(plugins.actions["webhook"], Action)
    info = plugins.action_infos()["webhook"]
    assert info.compile(info.validate({"url": "https://example.org"})) == STOP


def test_its_place_is_between_escalate_and_block():
    strengths = {name: a.strength for name, a in Plugins(["webhook"]).actions.items()}
    assert strengths["escalate"] < strengths["webhook"] < strengths["block"]


def test_approval_waives_the_policy(service):
    service.body = b'{"answer": "approve"}'
    assert respond(service) == Retry((SECRET,), frozenset({"ask"}))


def test_denial_is_the_actions_message_then_the_policys(service):
    assert respond(service, message="Policy says no.") == Answer("Policy says no.")
    assert respond(service, message="Policy says no.") == Answer("Policy says no.")


def test_the_service_may_answer_itself(service):
    service.body = json.dumps({"answer": "message", "message": "Call 116 123.", "more": 1}).encode()
    assert respond(service) == Answer("Call 116 123.")


def firing(service, **config):
    policy = {"id": "ask", "trait": "evil", "layer": 2, "threshold": {"raw": -1e6}, "message": "No."}
    return {
        "plugins": ["webhook"],
        "policies": [policy | {"action": {"webhook": {"url": service.url, **config}}}],
    }


def test_a_guard_asks_the_service_and_does_what_it_says(service, tmp_path):
    with tiny_guard(tmp_path, firing(service)) as guard:
        denied = guard.chat([SECRET], max_new_tokens=2)
        service.body = b'{"answer": "approve"}'
        approved = guard.chat([SECRET], max_new_tokens=2)
    assert (denied.text, denied.decision.action) == ("No.", "webhook")
    assert (approved.decision.action, approved.new_tokens) == ("allow", 2)
    assert len(service.seen) == 2


def test_a_guard_blocks_while_the_service_is_down(service, tmp_path):
    service.status = 503
    with tiny_guard(tmp_path, firing(service)) as guard:
        assert guard.chat([SECRET], max_new_tokens=2).text == "No."


def test_no_text_is_sent_unless_asked(service):
    respond(service)
    ((_, question),) = service.seen
    assert question["policy"] == "ask"
    assert question["decision"]["action"] == "webhook"
    assert len(question["prompt_sha256"]) == 64
    assert "secret plan" not in json.dumps(question)


def test_text_is_sent_where_it_is_asked_for(service):
    respond(service, send_text=True)
    ((_, question),) = service.seen
    assert question["messages"] == [{"role": "user", "content": "my secret plan"}]


def test_the_token_comes_from_the_environment(service, monkeypatch):
    monkeypatch.setenv("REVIEW_TOKEN", "abc")
    respond(service, token_env="REVIEW_TOKEN")
    ((headers, _),) = service.seen
    assert headers["Authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"answer": "approve"}'),
        (302, b'{"answer": "approve"}'),
        (201, b'{"answer": "approve"}'),
        (200, b""),
        (200, b"yes"),
        (200, b'{"answer": "maybe"}'),
        (200, b'{"answer": "message"}'),
        (200, b'["approve"]'),
        (200, b'{"answer": "approve", "message": "' + b"x" * 70_000 + b'"}'),
    ],
)
def test_anything_but_a_clear_answer_is_otherwise(service, status, body, caplog):
    service.status, service.body = status, body
    assert respond(service) == Otherwise("block")
    assert respond(service, otherwise="escalate") == Otherwise("escalate")
    assert "webhook of ask" in caplog.text


def test_a_late_answer_is_otherwise(service):
    service.body, service.delay = b'{"answer": "approve"}', 0.5
    assert respond(service, timeout_s=0.1) == Otherwise("block")


def test_a_service_that_drips_does_not_hold_the_request(service):
    service.body, service.drip = b'{"answer": "approve"}' + b" " * 100, 0.03
    start = time.monotonic()
    assert respond(service, timeout_s=0.2) == Otherwise("block")
    assert time.monotonic() - start < 2


def test_a_service_that_is_not_there_is_otherwise(service):
    with Service() as gone:
        pass
    assert respond(gone, timeout_s=1) == Otherwise("block")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "url"),
        ({"url": "ftp://example.org"}, "write an http"),
        ({"url": "example.org"}, "write an http"),
        ({"url": "https://user:pass@example.org"}, "credentials do not belong"),
        ({"url": "https://example.org", "timeout_s": 0}, "greater than 0"),
        ({"url": "https://example.org", "token_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"url": "https://example.org", "retries": 3}, "Extra inputs"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(config, message):
    with pytest.raises(ValidationError, match=message):
        WebhookConfig.model_validate(config)
