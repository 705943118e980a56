"""What gateways send to the doors for other models' traffic, and what they make of the answers."""

from contextlib import asynccontextmanager

import httpx
import tiny

from guardrail.demo.prompts import TOUR
from guardrail.plugins.hookspecs import hookimpl
from guardrail.serve.app import create_app
from guardrail.serve.settings import ServerSettings
from guardrail.testing import MemoryAudit

CHECK, LITELLM = "/v1/guard/check", "/beta/litellm_basic_guardrail_api"
STOPS = {stop.expected: stop.messages for stop in TOUR}
ALLOWED, BLOCKED, PERSON = STOPS["allow"], STOPS["block"], STOPS["escalate"]
ELSEWHERE = {
    "allow": "allow",
    "steer": "block",
    "rephrase": "block",
    "escalate": "escalate",
    "block": "block",
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}]}
JSON = {"content-type": "application/json"}
STEER = {"operator": "add", "coefficient": -1.0}
BAD_PROMPTS = {
    "empty": [{"role": "user", "content": ""}],
    "unknown role": [{"role": "wizard", "content": "Hello"}],
    "too long": [{"role": "user", "content": "word " * 20_000}],
}


def texts(messages):
    return [message["content"] for message in messages if isinstance(message["content"], str)]


def litellm(messages=None, **fields):
    """What LiteLLM sends for a chat."""
    chat = {"structured_messages": messages, "texts": texts(messages)} if messages else {}
    return {"input_type": "request", "request_data": {}, **chat, **fields}


def webhook(messages):
    return {"body": {"messages": messages}}


def gateway_reads(answer):
    """What agentgateway makes of an answer: the first action whose fields it finds. None is a failure."""
    action = answer.get("action")
    if not isinstance(action, dict):
        return None
    body = action.get("body")
    if isinstance(body, dict) and ("messages" in body or "choices" in body):
        return "mask"
    return "reject" if isinstance(body, str) and isinstance(action.get("status_code"), int) else "pass"


@asynccontextmanager
async def doors(folder, *rules, **keys):
    """A client of a server whose model has these policies."""
    with tiny.guard(folder, *rules, **keys) as made:
        transport = httpx.ASGITransport(create_app(made, ServerSettings(model="tiny")), False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield http


async def answers(http, messages=ALLOWED):
    """What each door says."""
    check = await http.post(CHECK, json={"messages": messages})
    call = await http.post(LITELLM, json=litellm(messages))
    hook = await http.post("/request", json=webhook(messages))
    return check.json().get("verdict"), call.json().get("action"), gateway_reads(hook.json())


class Plugin:
    """A scorer that fails, and an audit sink that fails if it is told to."""

    name = "broken"

    def __init__(self, failing=False):
        self.audit = MemoryAudit(failing)

    def score(self, messages):
        raise ValueError("secret")

    @hookimpl
    def guardrail_scorers(self):
        return [self]

    @hookimpl
    def guardrail_audit_sinks(self):
        return [self.audit]
