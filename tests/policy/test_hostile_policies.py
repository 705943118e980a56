"""Policy files and mappings that people get wrong on purpose: errors of ours, and soon."""

import json
from pathlib import Path

import pytest
from hostile import VALUES, ours, variants
from ruamel.yaml import YAML
from worlds import FINGERPRINT, world

from guardrail.errors import PolicyError
from guardrail.files.yaml import MAX_PROBLEMS
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.traits import load_definition, parse_definition

CASES = Path(__file__).parents[1] / "policies"
PLUGINS = Plugins()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def write(folder):
    def write(text):
        (folder / "hostile.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
        return folder / "hostile.yaml"

    return write


@pytest.mark.parametrize("name", ["every-key", "replies"])
@pytest.mark.slow
def test_whatever_stands_at_any_key_is_a_policy_error(write, name):
    data = YAML(typ="safe", pure=True).load((CASES / f"{name}.yaml").read_text())
    for text in variants(data, 1):
        with ours(text):
            load(write(text), FINGERPRINT, PLUGINS)


class Odd:
    """Something that no YAML can hold."""


ODD = [Odd(), b"x", {1, 2}, float("nan"), 10**5000, "\ud800", {Odd(): 1}, (1,), {None: {(): []}}]


@pytest.mark.parametrize("name", ["every-key", "replies"])
def test_a_mapping_may_hold_anything(folder, name):
    data = YAML(typ="safe", pure=True).load((CASES / f"{name}.yaml").read_text())
    paths = {key: str(folder / data[key]) for key in ("vectors", "calibration")}

    def put(value, odd, left):
        """The value with its `left`-th part replaced."""
        if next(left) == 0:
            return odd
        if isinstance(value, dict):
            return {key: put(item, odd, left) for key, item in value.items()}
        return [put(item, odd, left) for item in value] if isinstance(value, list) else value

    for place in range(1, 60):
        odd = ODD[(place + len(name)) % len(ODD)]
        with ours((place, odd)):
            load(put(data | paths, odd, iter(range(place, -10_000, -1))), FINGERPRINT, PLUGINS)


MANY = 4_000
"""Few enough to be read: larger files are refused for their size."""
LAUGHS = "x-0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"x-{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGES = "x-0: &a0 {k: 1}\n" + "".join(
    f"x-{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)
BOMBS = {
    "brackets": "[" * 10_000,
    "dashes": "- " * 10_000,
    "questions": "? " * 10_000,
    "braces": "a: " + "{b: " * 10_000,
    "keys": "version: 1\n" + "".join(f"k{i}: 1\n" for i in range(MANY)),
    "more keys": "version: 1\n" + "".join(f"k{i}: 1\n" for i in range(70_000)),
    "keys of a policy": "policies:\n- id: x\n" + "".join(f"  k{i}: 1\n" for i in range(MANY)),
    "one key": "a: 1\n" * MANY,
    "tags": "k: [" + "!a b," * MANY + "]",
    "items": "a: [" + "x," * 100_000,
    "laughs": LAUGHS + "version: 1\n",
    "laughing policies": LAUGHS + "policies: *a8\n",
    "few laughs": LAUGHS.split("x-4")[0] + "policies: *a3\n",
    "merges": MERGES,
    "merged policies": MERGES + "policies: [*a8]\n",
    "itself": "a: &a {<<: *a}",
    "a root tag": "!x {version: 1}",
    "aliases": "a: &a [*a]",
    "quotes": "'" * 200_000,
    "lines": "a:\n" + " x\n" * 20_000,
    "anchors": "".join(f"k{i}: &a{i} 1\n" for i in range(MANY)),
    "size": "#" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_small_file_takes_long(write, name):
    with ours(name), pytest.raises(PolicyError) as caught:
        load(write(BOMBS[name]), FINGERPRINT, PLUGINS)
    assert 1 <= len(caught.value.problems) <= MAX_PROBLEMS + 1


def test_problems_beyond_the_limit_are_counted(write):
    with pytest.raises(PolicyError) as caught:
        load(write("version: 1\n" + "".join(f"k{i}: !x 1\n" for i in range(250))), FINGERPRINT, PLUGINS)
    assert caught.value.problems[-1].message.startswith("and ")


@pytest.mark.parametrize("name", BOMBS)
def test_no_trait_definition_takes_long_either(name):
    with ours(name):
        parse_definition(BOMBS[name])


def test_whatever_stands_in_a_trait_definition_is_a_trait_error(tmp_path):
    good = {
        "name": "t",
        "description": "d",
        "instructions": [{"positive": "a", "negative": "b"}],
        "extraction": ["c"],
        "evaluation": ["d"],
        "rubric": "{question} {answer}",
    }
    for text in [*VALUES, *variants(good), json.dumps(good)]:
        for suffix in (".yaml", ".json"):
            (tmp_path / f"t{suffix}").write_text(text)
            with ours(text):
                load_definition(tmp_path / f"t{suffix}")
