"""A model that is spread over workers, or served by several engines, is guarded as one on one worker."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from guardrail import Guard
from guardrail.audit import read
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.testing import CHAT_TEMPLATE, hand_made_vectors, tiny_model, tiny_tokenizer

WORDS = ["tide", "lamp", "seven", "quartz", "river", "onion", "clock", "maple"]
PROMPTS = [f"{first} {second}" for first in WORDS for second in WORDS[:4]]
LAYER = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model, which has an even number of heads, and vectors for it."""
    folder = tmp_path_factory.mktemp("model")
    tiny_model(d_model=128).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    loaded, tokenizer = load_pretrained(str(folder), {})
    found = fingerprint(loaded, tokenizer, CHAT_TEMPLATE, {})
    # not beside the weights, which are all the files of this kind there
    hand_made_vectors(fingerprint=found).save(f"{folder}.safetensors")
    return folder


def policies(model, threshold, **more):
    rule = {
        "id": "first",
        "trait": "evil",
        "layer": LAYER,
        "threshold": {"raw": threshold},
        "action": "block",
    }
    # the first pass of several processes on few cores takes long
    defaults = {"timeout_ms": 200_000}
    return {"version": 1, "vectors": f"{model}.safetensors", "defaults": defaults, "policies": [rule], **more}


@pytest.fixture(scope="module")
def expected(model):
    """The threshold; score, refusal and length of the reply for each prompt, by the transformers engine."""
    with Guard.from_pretrained(str(model), policies(model, 0.0)) as guard:
        scores = sorted(float(guard.project(one, ["evil"], [LAYER])[0, 0]) for one in PROMPTS)
    # in the widest gap in the middle, so that rounding decides nothing
    _, threshold = max((b - a, (a + b) / 2) for a, b in pairwise(scores[8:-8]))
    with Guard.from_pretrained(str(model), policies(model, threshold)) as guard:
        replies = [guard.chat(one, temperature=0, max_tokens=8) for one in PROMPTS]
    found = {
        one: (reply.decision.scores[0].score, reply.refused, reply.new_tokens)
        for one, reply in zip(PROMPTS, replies, strict=True)
    }
    assert {refused for _, refused, _ in found.values()} == {True, False}
    return threshold, found


def records(folder):
    return {record.id: record for record in read(folder / "audit.jsonl")}


def check(server, found):
    """Sixteen at a time, all prompts are scored, decided and answered as expected."""
    with ThreadPoolExecutor(16) as threads:
        chats = [[{"role": "user", "content": one}] for one in found]
        told = list(threads.map(lambda chat: server.ask(chat, max_tokens=8), chats))
    kept = records(server.folder)
    for (score, refused, tokens), (headers, reply) in zip(found.values(), told, strict=True):
        (choice,) = reply.choices
        decision = kept[headers["x-guardrail-audit-id"]].decision
        assert decision.scores[0].score == pytest.approx(score, rel=1e-3, abs=1e-3)
        assert (choice.finish_reason == "content_filter", reply.usage.completion_tokens) == (refused, tokens)


def test_two_workers_that_share_a_model_decide_as_one(model, expected, serving, tmp_path):
    threshold, found = expected
    text = json.dumps(policies(model, threshold, audit={"jsonl": "audit.jsonl"}))
    with serving(tmp_path, "--tensor-parallel-size", "2", policies=text, model=model) as server:
        server.wait()
        check(server, found)


LOOSEN = """
import os
from guardrail.plugins.hookspecs import hookimpl

@hookimpl
def guardrail_review(decision, messages):
    return "allow" if messages[-1].content == os.environ["LOOSEN"] else None
"""


def install(folder):
    """The plugin, as if it were installed there."""
    (folder / "loosen.py").write_text(LOOSEN)
    about = folder / "loosen-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loosen\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[guardrail]\nloosen = loosen\n")


def test_two_engines_decide_as_one_and_do_what_plugins_of_the_guard_say(model, expected, serving, tmp_path):
    threshold, found = expected
    loose = next(one for one, (_, refused, _) in found.items() if refused)
    install(tmp_path)
    text = json.dumps(policies(model, threshold, audit={"jsonl": "audit.jsonl"}, plugins=["loosen"]))
    with serving(tmp_path, "--data-parallel-size", "2", policies=text, model=model, LOOSEN=loose) as server:
        server.wait()
        check(server, {one: what for one, what in found.items() if one != loose})
        headers, reply = server.ask([{"role": "user", "content": loose}], max_tokens=8)
        decision = records(tmp_path)[headers["x-guardrail-audit-id"]].decision
        assert (decision.action, decision.fired) == ("allow", ("first",))
        assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 8)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_engines_on_two_nodes_decide_as_one(model, expected, serving, tmp_path):
    threshold, found = expected
    text = json.dumps(policies(model, threshold, audit={"jsonl": "audit.jsonl"}))
    nodes = [tmp_path / name for name in ("first", "second")]
    for node in nodes:
        node.mkdir()
    shared = (
        *("--data-parallel-size", "2", "--data-parallel-size-local", "1"),
        *("--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(free_port())),
    )
    other = (*shared, "--headless", "--data-parallel-start-rank", "1")
    with (
        serving(nodes[1], *other, policies=text, model=model),
        serving(nodes[0], *shared, policies=text, model=model) as server,
    ):
        server.wait()
        check(server, found)
