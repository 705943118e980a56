"""Without vLLM, which has an environment of its own: whoever asks for it hears what to install."""

from pathlib import Path

import pytest

from guardrail.cli import run
from guardrail.errors import PluginError
from guardrail.plugins.manager import Plugins

PLUGIN = Path(__file__).parents[2] / "plugins" / "guardrail-vllm"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)


def test_the_engine_names_its_package_and_how_to_enable_it():
    with pytest.raises(PluginError, match=r"pip install persona-guardrail-vllm.*GUARDRAIL_PLUGINS=vllm"):
        Plugins().check_engine("vllm")


def test_the_command_line_says_the_same(capsys):
    assert run(["check", "--engine", "vllm", "Hello"]) == 2
    assert "persona-guardrail-vllm" in " ".join(capsys.readouterr().err.split())


def test_the_plugin_without_vllm_names_the_packages_that_have_it():
    from guardrail_vllm.versions import require_vllm

    with pytest.raises(PluginError, match=r"vLLM is not installed: .*persona-guardrail-vllm\[gpu\].*\[cpu\]"):
        require_vllm()
