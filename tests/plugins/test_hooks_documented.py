"""No hook without its exact signature in plugins/README.md, a runnable example there, and a test."""

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML

from guardrail.plugins import hookspecs
from guardrail.plugins.manager import Plugins
from guardrail.plugins.registry import HOOKS
from guardrail.testing import tiny_fingerprint

ROOT = Path(__file__).parents[2]
README = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^###? |\Z)", README, re.DOTALL | re.MULTILINE))


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def signature(source, name):
    (found,) = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name]
    return ast.unparse(found.args), ast.unparse(found.returns)


def example(name):
    """The example of a hook, run as the module that it would be."""
    module = ModuleType(f"example_{name}")
    exec(compile(blocks(SECTIONS[name], "python")[1], name, "exec", dont_inherit=True), vars(module))
    return module


def test_the_readme_documents_the_hooks_that_exist_in_the_order_of_the_flow():
    assert tuple(SECTIONS) == HOOKS
    assert len(HOOKS) == 15


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_exact_signature(hook):
    documented = signature(blocks(SECTIONS[hook], "python")[0], hook)
    assert documented == signature(Path(hookspecs.__file__).read_text(encoding="utf-8"), hook)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_an_example_that_is_a_plugin(hook):
    plugins = Plugins([example(hook)])
    (row,) = [row for row in plugins.listing() if row.name == f"example_{hook}"]
    assert hook in row.hooks


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook):
    assert f"def test_hook_{hook}(" in (ROOT / "tests" / "plugins" / "test_plugins.py").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("hook", "view", "name"),
    [
        ("guardrail_actions", lambda plugins: plugins.actions, "cool-down"),
        ("guardrail_probes", lambda plugins: plugins.probes(tiny_fingerprint()), "first-coordinate"),
        ("guardrail_scorers", lambda plugins: plugins.scorers, "shouting"),
        ("guardrail_rephrasers", lambda plugins: plugins.rephrasers, "calm"),
        ("guardrail_escalation_sinks", lambda plugins: plugins.escalation_sinks(), "memory-queue"),
        ("guardrail_audit_sinks", lambda plugins: plugins.audit_sinks(), "printed"),
        ("guardrail_judges", lambda plugins: plugins.judges, "exclamations"),
        ("guardrail_extraction_methods", lambda plugins: plugins.extraction_methods, "median-difference"),
    ],
)
def test_the_examples_provide_what_they_say(hook, view, name):
    assert name in view(Plugins([example(hook)]))


def test_the_yaml_of_the_examples_validates():
    plugins = Plugins([example("guardrail_actions"), example("guardrail_rephrasers")])
    for hook in ("guardrail_actions", "guardrail_rephrasers"):
        for block in blocks(SECTIONS[hook], "yaml"):
            ((name, config),) = YAML(typ="safe").load(block)["action"].items()
            plugins.action_infos()[name].validate(config)


def test_every_package_here_is_in_the_table():
    packages = {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert packages == set(re.findall(r"^\| \[([\w.-]+)\]", README, re.MULTILINE))
