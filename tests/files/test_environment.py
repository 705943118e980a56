"""Variables of the environment in policy files."""

import pytest
from worlds import FINGERPRINT, world

from guardrail.errors import PolicyError
from guardrail.files.environment import filled
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load

SET = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${NAME}", "value"),
        ("a ${NAME}, a ${NAME}", "a value, a value"),
        ("${NAME:-other}", "value"),
        ("${UNSET:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${UNSET:-}", ""),
        ("$${NAME}", "${NAME}"),
        ("it costs $5, $NAME or $$", "it costs $5, $NAME or $"),
        ("${NESTED}", "${NAME}"),
    ],
)
def test_filled(text, found):
    assert filled(text, SET) == found


@pytest.mark.parametrize("text", ["${UNSET}", "${}", "${NAME", "${NAME-x}", "${1}", "${A B}", "${NAME:?x}"])
def test_what_cannot_be_filled_is_an_error(text):
    with pytest.raises(ValueError, match=r"not set|is no variable"):
        filled(text, SET)


@pytest.fixture
def write(tmp_path):
    def write(**keys):
        rule = {"id": "a", "trait": "evil", "layer": "2", "threshold": "2.0", "action": "block"} | keys
        lines = "".join(f"    {key}: {value}\n" for key, value in rule.items())
        (world(tmp_path) / "policies.yaml").write_text(
            "version: 1\nvectors: ${FOLDER:-.}/vectors.safetensors\ncalibration: calibration.json\n"
            f"policies:\n  -\n{lines}"
        )
        return tmp_path / "policies.yaml"

    return write


def active(path):
    return load(path, FINGERPRINT, Plugins())


def test_plain_values_get_the_type_that_they_would_have_there(write, monkeypatch):
    monkeypatch.setenv("SCORE", "1.5")
    monkeypatch.setenv("SAY", "7")
    path = write(threshold="${SCORE}", layer="${LAYER:-3}", message='"${SAY} times $$1"')
    (policy,) = active(path).policies.policies
    assert (policy.threshold, policy.layer, policy.message) == (1.5, 3, "7 times $1")


@pytest.mark.parametrize(
    "threshold",
    ["{fpr: ${RATE}}", "{fpr: ${RATE} }", "{fpr: ${NO:-0.02}}", "{${KEY:-fpr}: 0.02}", "{raw: ${NO:-1,5}}"],
)
def test_variables_stand_in_braces_without_quotes(write, monkeypatch, threshold):
    monkeypatch.setenv("RATE", "0.02")
    if "fpr: $" in threshold:
        assert active(write(threshold=threshold)).policies.policies[0].threshold.fpr == 0.02
    else:
        said = "".join(problems(write(threshold=threshold)))
        assert "${KEY:-fpr}" in said or "must be a number, not `${NO:-1,5}`" in said


def test_a_list_of_variables_and_text_with_their_replacements(write, monkeypatch):
    monkeypatch.setenv("TAG", "a, b")
    assert active(write(when="{tags: [${TAG}, c]}")).policies.policies[0].when.tags == ("a, b", "c")
    odd = active(write(message="'\uf8f0 {x}'"))
    assert odd.policies.policies[0].message == "\uf8f0 {x}"


def test_the_hash_is_that_of_what_was_filled_in(write, monkeypatch):
    path = write(threshold="${SCORE}")
    monkeypatch.setenv("SCORE", "1.5")
    first = active(path).sha256
    monkeypatch.setenv("SCORE", "2.5")
    assert first != active(path).sha256
    monkeypatch.setenv("SCORE", "1.5")
    assert first == active(path).sha256 == active(write(threshold="1.5")).sha256


def problems(path):
    with pytest.raises(PolicyError) as caught:
        active(path)
    assert [(p.line, p.column) for p in caught.value.problems] != [(None, None)]
    return str(caught.value).replace(f"{path}:", "").splitlines()


def test_a_variable_that_is_not_set_is_a_problem_with_its_place(write):
    (said,) = problems(write(threshold="${NOPE}"))
    unset = "`NOPE` is not set in the environment; ${NOPE:-...} gives a default"
    assert said == f"9:16: policies[0].threshold: {unset}"


def test_a_variable_that_is_its_own_default_is_shown_once(write):
    (said,) = problems(write(threshold='{fpr: "${RATE:-0.01}"}'))
    assert said.endswith("must be a number, not `${RATE:-0.01}`")


SECRET = "s3cret-" + "x" * 80


@pytest.mark.parametrize(
    "keys",
    [
        {"threshold": "${SECRET}"},
        {"threshold": "{fpr: '${SECRET}'}"},
        {"threshold": "{frp: ${SECRET}}"},
        {"trait": "${SECRET}"},
        {"layer": "${SECRET}"},
        {"mode": "x${SECRET}"},
        {"action": "${SECRET}"},
        {"action": "{steer: {operator: cap, at: '${SECRET}'}}"},
        {"action": "{steer: ['${SECRET}']}"},
        {"stage": "!!int ${SECRET}"},
        {"when": "${SECRET}"},
        {"id": "'${SECRET} '"},
    ],
)
def test_no_error_repeats_what_the_environment_holds(write, monkeypatch, keys):
    monkeypatch.setenv("SECRET", SECRET)
    said = "\n".join(problems(write(**keys)))
    assert "s3cret" not in said


def test_a_path_from_the_environment_is_not_repeated_either(write, monkeypatch):
    monkeypatch.setenv("FOLDER", SECRET)
    (said,) = problems(write())
    assert "vectors: " in said
    assert "/${FOLDER:-.}/vectors.safetensors: cannot be read" in said
    assert "s3cret" not in said
