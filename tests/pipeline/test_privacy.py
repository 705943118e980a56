"""Nothing that a prompt says reaches a log or an audit record that nobody asked to hold text."""

from typing import ClassVar

import pytest
from tiny import FIRES, NEVER, guard, policy, rewatch

from guardrail.errors import PromptError, located, outline
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import NoConfig

SECRET = "the canary sings at noon"
FAILS = ValueError(f"cannot handle {SECRET!r}")


class Quoting:
    """Scorer, rephraser, escalation sink, audit sink and action in one; each fails and quotes."""

    name, strength = "quoting", 25
    Config: ClassVar = NoConfig

    def compile(self, config):
        return "stop"

    def fail(self, *arguments, **options):
        raise FAILS

    score = rephrase = open = get = pending = resolve = use = respond = decided = finished = fail

    def close(self):
        pass


def offering(hook):
    """A plugin whose only hook offers the thing that fails."""
    return type("Plugin", (), {hook: hookimpl(lambda self: [Quoting()])})()


class Reviewing:
    @hookimpl
    def guardrail_review(self, decision):
        raise FAILS


RULES = {
    "guardrail_scorers": policy(trait="quoting", threshold=5.0),
    "guardrail_actions": policy("quoting", threshold=FIRES),
    "guardrail_rephrasers": policy({"rephrase": {"instruction": "x", "by": "quoting"}}, threshold=FIRES),
    "guardrail_escalation_sinks": policy({"escalate": {"to": "quoting"}}, threshold=FIRES),
    "guardrail_audit_sinks": policy(threshold=NEVER),
}


def ask(folder, rule, plugin=None, before=None, **audit):
    """Asks with the secret; what the guard raised, if anything, and the text of the audit log."""
    log, raised = folder / "audit.jsonl", None
    options = {"plugins": [plugin] if plugin else []}
    with guard(folder, rule, options=options, audit={"jsonl": str(log), **audit}) as made:
        if before:
            before(made)
        try:
            made.chat(SECRET, max_new_tokens=2)
        except Exception as error:
            raised = error
    return raised, log.read_text()


@pytest.mark.parametrize("hook", RULES)
def test_what_a_plugin_that_fails_says_of_the_prompt_is_in_no_log(hook, tmp_path, caplog):
    raised, log = ask(tmp_path, RULES[hook], offering(hook), on_error="drop")
    assert raised is None
    assert SECRET not in log
    assert SECRET not in caplog.text
    assert "ValueError" in caplog.text


def test_a_review_that_fails_quotes_nothing(tmp_path, caplog):
    _, log = ask(tmp_path, policy(threshold=NEVER), Reviewing())
    assert "ValueError" in log
    assert SECRET not in log + caplog.text


def break_model(made):
    def fail(*_):
        raise FAILS

    made.model.register_forward_pre_hook(fail)
    rewatch(made)


def break_decoding(made):
    calls = iter(range(100))

    def fail(*_):
        if next(calls) > 0:
            raise FAILS

    made.model.register_forward_pre_hook(fail)
    rewatch(made)


def break_template(made):
    made.engine.local.renderer.template = "{{ raise_exception('cannot say ' + messages[0].content) }}"


BREAKS = [break_model, break_decoding, break_template]


@pytest.mark.parametrize("breaks", BREAKS)
def test_errors_of_the_model_and_its_template_leave_their_class_alone(breaks, tmp_path, caplog):
    _, log = ask(tmp_path, policy(threshold=NEVER), before=breaks)
    assert "Error" in log
    assert SECRET not in log + caplog.text


@pytest.mark.parametrize("breaks", BREAKS)
def test_with_text_the_record_says_what_went_wrong(breaks, tmp_path):
    _, log = ask(tmp_path, policy(threshold=NEVER), before=breaks, text=True)
    assert f"cannot {'say' if breaks is break_template else 'handle'}" in log


def caught(raising):
    try:
        raising()
    except Exception as error:
        return error


def test_an_outline_keeps_our_own_words_and_nobody_elses():
    def wraps():
        try:
            raise FAILS
        except ValueError as error:
            raise PromptError(f"the template refuses: {error}") from error

    assert outline(PromptError("there are no messages")) == "PromptError: there are no messages"
    assert outline(FAILS) == "ValueError"
    assert outline(caught(wraps)) == "PromptError, caused by ValueError"
    assert SECRET in outline(FAILS, text=True)


def test_an_error_is_located_without_its_words():
    error = caught(Quoting().fail)
    assert located(error).startswith(f"ValueError < {__file__}:")
    assert SECRET not in located(error)
