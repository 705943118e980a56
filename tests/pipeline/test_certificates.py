"""A guard says, or refuses, when its calibration is not certified for how the model runs, or no longer is."""

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import torch
from tiny import FIRES, NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.calibration.certificates import Certificate
from guardrail.calibration.values import Calibration
from guardrail.engines.configurations import configuration
from guardrail.engines.transformers.configuration import configuration as configured
from guardrail.engines.transformers.model import LocalModel
from guardrail.errors import PolicyError
from guardrail.testing import tiny_model
from guardrail.types import Configuration

NOW = datetime.now(UTC)


def certificate(model, age_days=0.0, **keys):
    made = (NOW - timedelta(days=age_days)).isoformat(timespec="seconds")
    return Certificate(
        configuration=configured(LocalModel(model, TOKENIZER)), created=made, prompts=500, **keys
    )


@contextmanager
def guarded(folder, *rules, model=None, certificates=(), other=None, **keys):
    """A guard whose calibration has these certificates, around `model` or, instead, `other`."""
    model = tiny_model() if model is None else model
    write_vectors(folder, model)
    path = folder / "calibration.json"
    Calibration.load(path).certified(*certificates).save(path)
    with Guard(model if other is None else other, TOKENIZER, policies(folder, *rules, **keys)) as made:
        yield made


def quiet(threshold=NEVER, **keys):
    return policy(threshold=threshold, **keys)


def certified(folder, *rules, age_days=0.0, limits=None, **keys):
    model = tiny_model()
    made = certificate(model, age_days, **(limits or {}))
    return guarded(folder, *rules, model=model, certificates=[made], **keys)


def test_the_configuration_is_that_of_the_loaded_model(tmp_path):
    with guarded(tmp_path, quiet()) as guard:
        found = configuration(guard.engine)
        assert (found.engine, found.dtype, found.device) == ("transformers", "float32", "cpu")
        assert found.attention == guard.model.config._attn_implementation
        assert found.chat_template == guard.engine.fingerprint.chat_template
        assert [one.split()[0] for one in found.versions] == ["torch", "transformers"]
        assert "+" not in str(found.versions)


def test_of_an_engine_that_does_not_say_only_its_kind_is_known(tmp_path):
    class Silent:
        fingerprint = replace(certificate_of_nothing(), chat_template="c" * 32)

    found = configuration(Silent())
    assert found == Configuration(engine="Silent", chat_template="c" * 32)
    assert "dtype unknown" in str(Configuration(engine="Silent").differences(replace(found, dtype="float32")))


def certificate_of_nothing():
    from guardrail.testing import tiny_fingerprint

    return tiny_fingerprint()


def test_the_configuration_that_a_calibration_is_certified_for_is_not_warned_about(tmp_path):
    with certified(tmp_path, quiet(), require_certified=True) as guard:
        assert guard.check("Hello").decision.warnings == ()


def test_another_dtype_is_warned_about_in_every_decision(tmp_path):
    other = tiny_model().to(torch.bfloat16)
    with certified(tmp_path, quiet(), other=other, allow_model_mismatch=True) as guard:
        (warning,) = [w for w in guard.check("Hello").decision.warnings if "certified" in w]
    assert "(dtype float32, now bfloat16)" in warning
    assert "guardrail certify" in warning


def test_another_dtype_is_refused_if_a_certificate_is_required(tmp_path):
    other = tiny_model().to(torch.bfloat16)
    keys = {"allow_model_mismatch": True, "require_certified": True}
    with (
        pytest.raises(PolicyError, match=r"calibration: .*dtype float32, now bfloat16"),
        certified(tmp_path, quiet(), other=other, **keys),
    ):
        pass


def test_a_calibration_without_certificates_is_refused_only_if_one_is_required(tmp_path):
    with guarded(tmp_path, quiet()) as guard:
        assert guard.check("Hello").decision.warnings == ()
    with (
        pytest.raises(PolicyError, match="has no certificate; make one with `guardrail certify`"),
        guarded(tmp_path, quiet(), require_certified=True),
    ):
        pass


def test_without_a_calibration_nothing_is_certified(tmp_path):
    with (
        pytest.raises(PolicyError, match="require_certified: there is no calibration"),
        guarded(tmp_path, quiet({"raw": 1e6}), calibration=None, require_certified=True),
    ):
        pass


EXPIRED = {"age_days": 31, "limits": {"max_age_days": 30}}


def test_an_expired_certificate_blocks_unless_policies_say_otherwise(tmp_path):
    with certified(tmp_path, quiet(), **EXPIRED) as guard:
        decision = guard.check("Hello").decision
    assert (decision.action, decision.status) == ("block", "error")
    assert "expired on" in decision.error
    assert "guardrail certify" in decision.error
    assert decision.scores, "what was read is still shown"


def test_an_expired_certificate_may_ask_a_person(tmp_path):
    with certified(tmp_path, quiet(on_stale="escalate"), **EXPIRED) as guard:
        assert guard.check("Hello").decision.action == "escalate"


def test_a_stronger_action_of_the_policies_stands(tmp_path):
    with certified(tmp_path, quiet(FIRES, on_stale="escalate"), **EXPIRED) as guard:
        decision = guard.check("Hello").decision
    assert (decision.action, decision.policy, decision.status) == ("block", "test", "error")


def test_an_expired_certificate_may_turn_policies_into_shadows_which_fails_open(tmp_path):
    with certified(tmp_path, quiet(FIRES, on_stale="shadow"), **EXPIRED) as guard:
        decision = guard.check("Hello").decision
    assert (decision.action, decision.would_action, decision.status) == ("allow", "block", "evaluated")
    assert [score.mode for score in decision.scores] == ["shadow"]
    assert decision.fail_open
    assert any("expired on" in warning for warning in decision.warnings)


def test_shadows_of_some_policies_leave_the_others_in_force(tmp_path):
    rules = quiet(FIRES, id="shadowed", on_stale="shadow"), quiet(id="strict")
    with certified(tmp_path, *rules, **EXPIRED) as guard:
        assert guard.check("Hello").decision.action == "block"


def test_a_reply_policy_is_a_shadow_as_well(tmp_path):
    threshold = {"raw": -1e9}
    rules = quiet(on_stale="shadow"), quiet(threshold, id="reply", stage="response", on_stale="shadow")
    with certified(tmp_path, *rules, **EXPIRED) as guard:
        reply = guard.chat("Hello", max_new_tokens=4, temperature=0)
    assert reply.outcome == "answered"
    assert [score.mode for score in reply.reply_decision.scores] == ["shadow"]


def test_a_certificate_within_its_age_says_nothing(tmp_path):
    with certified(tmp_path, quiet(), age_days=29, limits={"max_age_days": 30}) as guard:
        assert guard.check("Hello").decision.warnings == ()


def test_a_certificate_expires_while_the_guard_runs(tmp_path):
    with certified(tmp_path, quiet(), age_days=1, limits={"max_age_days": 2}) as guard:
        plan = guard.active.plan
        assert plan.stale(NOW) is None
        assert plan.stale(NOW + timedelta(days=2)) is not None


@pytest.mark.parametrize(("drift", "action"), [(None, "allow"), (0.2, "allow"), (0.21, "block")])
def test_drift_beyond_what_the_certificate_allows_makes_it_stale(tmp_path, drift, action):
    with certified(tmp_path, quiet(), limits={"max_drift": 0.2, "drift": drift}) as guard:
        decision = guard.check("Hello").decision
    assert decision.action == action
    assert bool(decision.error) == (action == "block")
