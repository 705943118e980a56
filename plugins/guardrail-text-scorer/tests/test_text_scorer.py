import json
import subprocess
import sys
import time

import numpy as np
import pytest
from guardrail_text_scorer import SHIPPED, TextClassifier, TextScorer, build
from guardrail_text_scorer.features import grams, vector
from guardrail_text_scorer.training import Example, read_examples, train

from guardrail.cli import run
from guardrail.errors import ConfigError, PluginError, PolicyError
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import Scorer
from guardrail.testing import tiny_guard
from guardrail.types import Message

RUDE = [Example((f"I hate you, number {i}",), True) for i in range(20)]
KIND = [Example((f"Thank you, number {i}",), False) for i in range(20)]


@pytest.fixture(scope="module")
def classifier():
    return train("rudeness", [*RUDE, *KIND])


def test_the_installed_package_is_a_scorer_once_it_is_enabled():
    assert "text-malice" not in Plugins().scorers
    scorer = Plugins().enabled(["text-scorer"]).scorers["text-malice"]
    assert isinstance(scorer, Scorer)


def test_the_shipped_model_tells_malice_from_the_rest_on_phrasings_it_has_not_seen():
    auroc, tpr = build.held_out(TextClassifier.load(SHIPPED))
    assert auroc >= 0.95
    assert tpr >= 0.5


def test_a_guard_blocks_by_the_score_and_lets_the_rest_pass(tmp_path):
    policy = {"id": "words", "trait": "text-malice", "threshold": 2.0, "action": "block", "message": "No."}
    malicious = [Message("system", "You are utterly malicious."), Message("user", "I want to hurt them.")]
    with tiny_guard(tmp_path, {"plugins": ["text-scorer"], "policies": [policy]}) as guard:
        blocked = guard.chat(malicious, max_new_tokens=2)
        allowed = guard.chat("What is the capital of France?", max_new_tokens=2)
    assert (blocked.text, blocked.decision.policy) == ("No.", "words")
    assert (allowed.decision.status, allowed.decision.action) == ("evaluated", "allow")
    assert allowed.decision.scores[0].score < 2.0


def test_a_scorer_that_is_not_enabled_is_an_unknown_trait(tmp_path):
    policy = {"id": "words", "trait": "text-malice", "threshold": 2.0, "action": "block"}
    with pytest.raises(PolicyError, match="unknown trait `text-malice`"):
        tiny_guard(tmp_path, {"policies": [policy]})


def test_training_learns_what_the_labels_say(classifier):
    assert classifier.logit(["I hate this"]) > 0 > classifier.logit(["Thank you so much"])


def test_training_twice_gives_the_same_weights(classifier):
    again = train("rudeness", [*RUDE, *KIND])
    assert np.array_equal(again.weights, classifier.weights)


def test_a_classifier_comes_back_from_its_file(classifier, tmp_path):
    classifier.save(tmp_path / "c.safetensors")
    back = TextClassifier.load(tmp_path / "c.safetensors")
    assert (back.name, back.logit(["hate"])) == ("rudeness", classifier.logit(["hate"]))


def test_only_system_and_user_turns_are_read(classifier):
    scorer = TextScorer(classifier)
    turns = [Message("user", "Thank you"), Message("assistant", "I hate you")]
    assert scorer.score(turns) == classifier.logit(["Thank you"])


def test_no_text_scores_the_bias(classifier):
    assert classifier.logit([]) == classifier.bias
    assert classifier.logit([""]) == classifier.bias


def test_features_do_not_depend_on_case_nor_on_the_process():
    code = "from guardrail_text_scorer.features import vector; print(sorted(vector(['Hi there'], 64)[0]))"
    seen = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": s}
        )
        for s in ("1", "2")
    ]
    assert seen[0].stdout == seen[1].stdout != ""
    assert list(grams("HATE")) == list(grams("hate"))


def test_features_have_length_one():
    _, values = vector(["some text", "and more"], 256)
    assert np.linalg.norm(values) == pytest.approx(1.0)


def test_a_long_prompt_is_scored_in_time():
    classifier = TextClassifier.load(SHIPPED)
    start = time.perf_counter()
    classifier.logit(["word " * 20_000])
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04]q\x00."])
def test_a_file_that_is_no_classifier_is_an_error(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(PluginError, match="text classifier"):
        TextClassifier.load(path)


def test_weights_that_are_not_finite_are_an_error():
    with pytest.raises(PluginError, match="not finite"):
        TextClassifier("x", np.array([np.nan], np.float32), 0.0)


def test_the_environment_names_other_models(classifier, tmp_path, monkeypatch):
    classifier.save(tmp_path / "c.safetensors")
    monkeypatch.setenv("GUARDRAIL_TEXT_SCORER", str(tmp_path / "c.safetensors"))
    assert list(Plugins(["text-scorer"]).scorers) == ["rudeness"]
    monkeypatch.setenv("GUARDRAIL_TEXT_SCORER", str(tmp_path / "none.safetensors"))
    with pytest.raises(PluginError, match=r"none\.safetensors"):
        _ = Plugins(["text-scorer"]).scorers


def test_the_command_line_trains_and_scores(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GUARDRAIL_PLUGINS", "text-scorer")
    rows = [{"text": example.texts[0], "label": int(example.label)} for example in (*RUDE, *KIND)]
    rows.append({"messages": [{"role": "user", "content": "I hate it"}], "label": 1})
    data, out = tmp_path / "data.jsonl", tmp_path / "c.safetensors"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    assert run(["text-scorer", "train", str(data), str(out), "--name", "rudeness"]) == 0
    assert run(["text-scorer", "score", "I hate you", "--model", str(out)]) == 0
    assert "41 examples" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{}", '{"text": "a", "label": 2}', "[1]", "nonsense", '{"label": 1}'])
def test_a_bad_line_is_named(tmp_path, line):
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": 0}\n' + line)
    with pytest.raises(ConfigError, match=r"data\.jsonl:2"):
        read_examples(data)


def test_one_label_is_not_enough():
    with pytest.raises(ConfigError, match="label 0 and with label 1"):
        train("x", RUDE)


def test_scoring_needs_neither_torch_nor_scikit_learn():
    code = """
import sys
from guardrail.types import Message
from guardrail_text_scorer import guardrail_scorers
guardrail_scorers()[0].score([Message("user", "Hi")])
sys.exit(any(name in sys.modules for name in ("torch", "sklearn", "scipy")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
