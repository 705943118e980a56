"""The policy files that people start from, their schema and their documentation."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from guardrail import demo
from guardrail.cli.models import read_fingerprint
from guardrail.plugins.manager import Plugins
from guardrail.policy.file import schema
from guardrail.policy.loading import load
from guardrail.policy.model import (
    AuditSettings,
    Condition,
    Defaults,
    FprThreshold,
    PercentileThreshold,
    Policy,
    PolicySet,
    RawThreshold,
    When,
)
from guardrail.policy.rates import set_rate

FOLDER = Path(__file__).parents[2] / "policies"
FILES = sorted(FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text()
SECTIONS = {
    "The file": PolicySet,
    "A policy": Policy,
    "Defaults": Defaults,
    "Audit": AuditSettings,
}


def configs():
    return {name: action.Config for name, action in Plugins().actions.items()}


def loaded(file):
    return load(file, read_fingerprint(demo.FINGERPRINT), Plugins())


def documented(text):
    """The keys in the first column of the tables, with what is said to be their default."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    return {cells[1].strip(" `"): cells[2].strip() for cells in rows}


def section(title):
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_file_loads_on_the_built_in_model(file):
    assert loaded(file).plan.rules


def test_the_three_files_are_there_and_in_the_readme():
    assert [file.stem for file in FILES] == ["chatbot", "observe", "strict"]
    assert all(f"({file.name})" in README for file in FILES)


def test_observing_enforces_nothing():
    assert {rule.mode for rule in loaded(FOLDER / "observe.yaml").plan.rules} == {"shadow"}


def test_the_chatbot_uses_all_four_actions():
    actions = {rule.action for rule in loaded(FOLDER / "chatbot.yaml").plan.rules}
    assert actions == {"block", "escalate", "rephrase", "steer"}


@pytest.mark.parametrize("name", ["chatbot", "strict"])
def test_enforcing_files_fail_closed_and_bound_their_rate(name):
    result = loaded(FOLDER / f"{name}.yaml")
    assert not result.plan.fail_open
    assert 0 < set_rate(result.plan, result.calibration).value <= 0.2


def test_the_schema_is_fresh():
    assert json.loads((FOLDER / "schema.json").read_text()) == schema(configs())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_schema_accepts_the_shipped_files(file):
    checker = json.loads((FOLDER / "schema.json").read_text())
    Draft202012Validator.check_schema(checker)
    Draft202012Validator(checker).validate(YAML(typ="safe", pure=True).load(file.read_text()))


@pytest.mark.parametrize("title", SECTIONS)
def test_the_readme_describes_exactly_the_keys_that_exist(title):
    first_table = section(title).strip().split("\n\n")[0]
    assert set(documented(first_table)) == set(SECTIONS[title].model_fields)


@pytest.mark.parametrize("model", [Condition, When, FprThreshold, PercentileThreshold, RawThreshold])
def test_the_readme_describes_the_inner_keys(model):
    assert set(model.model_fields) <= set(documented(section("A policy")))


@pytest.mark.parametrize("action", ["block", "escalate", "rephrase", "steer"])
def test_the_readme_describes_every_action(action):
    part = section("Actions").split(f"\n`{action}` ")[1].split("\n\n")[1]
    assert set(documented(part)) == set(configs()[action].model_fields)


@pytest.mark.parametrize("title", ["The file", "Defaults", "Audit"])
def test_the_readme_gives_the_right_defaults(title):
    said = documented(section(title))
    for name, field in SECTIONS[title].model_fields.items():
        default = field.default
        if isinstance(default, bool | str | int):
            assert said[name].strip("`") == json.dumps(default).strip('"'), name
