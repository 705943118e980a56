"""One pair of files in tests/policies for each case: the policy file, and what is said about it."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from policy_files import dump_policies, load_policies, parse_policies
from ruamel.yaml import YAML
from worlds import CALM, FINGERPRINT, world

from guardrail.errors import PolicyError
from guardrail.files.yaml import MAX_BYTES, parse_document
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import NoConfig
from guardrail.policy.file import schema
from guardrail.policy.loading import load

CASES = Path(__file__).parents[1] / "policies"
WRONG = sorted(path.stem for path in CASES.glob("*.txt"))
GOOD = sorted({path.stem for path in CASES.glob("*.yaml")} - set(WRONG))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = world(tmp_path_factory.mktemp("policies"))
    for path in CASES.glob("*.yaml"):
        shutil.copy(path, folder)
    return folder


def lines(error, source):
    """The message without the name of the file that every line starts with."""
    text = str(error).replace(f"{source.parent}/", "")
    return [line.removeprefix(f"{source.name}:").strip() for line in text.splitlines()]


@pytest.fixture(scope="module")
def file_schema():
    return schema({name: action.Config for name, action in Plugins().actions.items()})


@pytest.mark.parametrize("name", WRONG)
def test_every_problem_is_reported_with_its_place(folder, name):
    file = folder / f"{name}.yaml"
    with pytest.raises(PolicyError) as caught:
        load(file, FINGERPRINT, Plugins())
    assert lines(caught.value, file) == (CASES / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_loads_and_fits_the_schema(folder, name, file_schema):
    load(folder / f"{name}.yaml", FINGERPRINT, Plugins())
    data = YAML(typ="safe", pure=True).load((CASES / f"{name}.yaml").read_text())
    Draft202012Validator(file_schema).validate(data)


@pytest.mark.parametrize("name", ["actions", "unknown-keys", "wrong-types", "thresholds", "conditions"])
def test_editors_see_the_same_files_as_wrong(name, file_schema):
    data = YAML(typ="safe", pure=True).load((CASES / f"{name}.yaml").read_text())
    assert not Draft202012Validator(file_schema).is_valid(data)


def test_every_line_of_the_message_names_file_line_and_column(folder):
    with pytest.raises(PolicyError) as caught:
        load_policies(folder / "unknown-keys.yaml")
    assert all(line.startswith(f"{folder}/unknown-keys.yaml:") for line in str(caught.value).splitlines())
    assert [(p.line, p.column) for p in caught.value.problems] == [(4, 1), (8, 5), (10, 5)]


@pytest.mark.parametrize("name", GOOD)
def test_dumped_policies_read_back_the_same(name):
    policies = load_policies(CASES / f"{name}.yaml")
    assert parse_policies(dump_policies(policies)) == policies


def test_a_missing_file_a_folder_and_a_broken_encoding_say_so(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("version: 1 # é".encode("latin-1"))
    (tmp_path / "huge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    said = {
        "nowhere.yaml": "cannot be read: No such file or directory",
        ".": "cannot be read: Is a directory",
        "latin.yaml": "the file is not UTF-8 text (byte 13)",
        "huge.yaml": "the file is larger than 250,000 bytes",
    }
    for name, message in said.items():
        with pytest.raises(PolicyError) as caught:
            load_policies(tmp_path / name)
        assert caught.value.problems[0].message == message


@pytest.mark.parametrize("text", ["[" * 2000, "a: " + "{b: " * 2000, "- " * 2000])
def test_deep_nesting_is_an_error_and_no_crash(text):
    with pytest.raises(PolicyError):
        parse_document(text)


def test_aliases_cannot_grow_a_small_file_without_bound():
    levels = [f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    document = parse_document("\n".join(["k0: &a0 [1]", *levels]))
    assert [problem.message for problem in document.problems] == ["too many values"]


@pytest.mark.parametrize("text", ["a: \x07", "a: !!int x", "a: 2026-99-99", "? [1]\n: 2", "1: 2"])
def test_odd_yaml_is_refused_with_a_place(text):
    with pytest.raises(PolicyError) as caught:
        parse_policies(text)
    assert caught.value.problems[0].line == 1


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes("﻿version: 1\r\nallow_empty: true\r\n".encode())
    assert load_policies(path).allow_empty


WHOLE = (CASES / "every-key.yaml").read_text()
BUILT_IN = Plugins()
NOISE = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["{", "}", "[", "]", ": ", "- ", "\n", "&a ", "*a", "<<: ", "!!x ", "null", "3", "~", "\t", "'"]
    ),
)


@settings(CALM, max_examples=60)
@given(start=st.integers(0, len(WHOLE)), length=st.integers(0, 40), noise=NOISE)
@pytest.mark.slow
def test_whatever_is_typed_loads_or_is_a_policy_error(folder, start, length, noise):
    text = WHOLE[:start] + noise + WHOLE[start + length :]
    file = folder / "typed.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    with suppress(PolicyError):
        load(file, FINGERPRINT, BUILT_IN)


def test_words_like_on_and_yes_stay_text():
    assert parse_policies("version: 1\nallow_empty: true\nplugins: [on, yes, off]").plugins == (
        "on",
        "yes",
        "off",
    )


def test_a_plugin_action_joins_the_schema(file_schema):
    text = json.dumps(file_schema)
    assert all(
        name in text for name in ("SteerConfig", "RephraseConfig", "EscalateConfig", "additionalProperties")
    )


def test_without_an_action_that_stands_alone_the_schema_offers_none(file_schema):
    assert "enum" in file_schema["$defs"]["ActionUse"]["oneOf"][0]

    class Demanding(NoConfig):
        level: int

    made = schema({"demanding": Demanding})
    (form,) = made["$defs"]["ActionUse"]["oneOf"]
    assert form["required"] == ["demanding"]
    Draft202012Validator.check_schema(made)
