"""The script that runs malicious prompts beside other calls of the model, on a few of them."""

import json

import pytest

from benchmarks import passes


@pytest.mark.slow
def test_a_few_prompts_are_blocked_beside_passes_of_others_and_checks_are_cheap(tmp_path):
    out = tmp_path / "passes.json"
    assert passes.main(["--prompts", "4", "--engines", "transformers-hooks", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    (one,) = found["engines"].values()
    assert (one["prompts"], one["answered"], one["steered_replies"]) == (4, 0, 1)
    assert set(one["passes_of_others"]) == {"model", "decoder", "blocks", "second guard"}
    assert found["costs"]["request_us"] < 20


def test_an_answered_prompt_or_a_changed_pass_is_a_failure():
    good = {"answered": 0, "other_score": 0, "changed_or_answered": {"model": 0}, "errors": []}
    assert not passes.failed(good)
    assert passes.failed({**good, "answered": 1})
    assert passes.failed({**good, "changed_or_answered": {"model": 1}})
    assert passes.failed({**good, "errors": ["RuntimeError: broken"]})
