"""A guard that cannot be opened leaves nothing behind; a request that fails leaves a record behind."""

import threading

import pytest
from tiny import TOKENIZER, guard, policies, policy, write_vectors

from guardrail import Guard
from guardrail.errors import PluginError, PromptError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.testing import MemoryAudit, tiny_model


class Broken:
    """A plugin with an audit sink, whose start-up hook raises."""

    def __init__(self):
        self.audit = MemoryAudit()

    @hookimpl
    def guardrail_audit_sinks(self, settings):
        return [self.audit]

    @hookimpl
    def guardrail_startup(self, guard):
        raise RuntimeError("not today")


def test_a_start_up_hook_that_raises_leaves_nothing_open(tmp_path):
    model, broken = tiny_model(), Broken()
    write_vectors(tmp_path, model)
    path = tmp_path / "policies.yaml"
    path.write_text("version: 1\nvectors: vectors.safetensors\nallow_empty: true\n")
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(PluginError, match="not today"):
        Guard(model, TOKENIZER, path, plugins=[broken], watch_s=0.01)
    assert broken.audit.closed
    assert {thread.name for thread in threading.enumerate()} == before
    with Guard(model, TOKENIZER, policies(tmp_path, policy())) as made:
        assert made.check("hello").decision.action == "block", "the model is free again"


@pytest.mark.parametrize("ask", ["chat", "check", "stream"])
def test_every_way_of_asking_records_a_request_that_cannot_be_evaluated(tmp_path, ask):
    class Memory:
        audit = MemoryAudit()

        @hookimpl
        def guardrail_audit_sinks(self, settings):
            return [self.audit]

    memory = Memory()
    with guard(tmp_path, policy(), options={"plugins": [memory]}) as made, pytest.raises(PromptError):
        list(getattr(made, ask)("word " * 3000))
    (record,) = memory.audit.records.values()
    assert (record.kind, record.outcome) == (ask, "error")
    assert record.error.startswith("PromptError")
    assert record.decision.status == "not_evaluated"
