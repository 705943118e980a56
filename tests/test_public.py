"""The public surface: the names, nothing that loads early, and one way to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import guardrail
from guardrail import errors


def test_all_is_a_sorted_literal_of_names_that_can_be_imported():
    fresh = "import guardrail; [getattr(guardrail, name) for name in guardrail.__all__]"
    subprocess.run([sys.executable, "-c", fresh], check=True)
    assert guardrail.__all__ == sorted(guardrail.__all__) == dir(guardrail)


def test_the_public_names_are_these():
    """A name that disappears breaks somebody's import; a new one is a promise."""
    assert set(guardrail.__all__) == {
        *("Guard", "Reply", "Check", "Decision", "Score", "Message", "Ticket", "Probe", "hookimpl"),
        *("Calibration", "PolicySet", "TraitVector", "TraitVectors"),
        *("GuardrailError", "ConfigError", "PolicyError", "RequestError", "PromptError"),
        *("UnsupportedGeneration", "QueueFull", "GuardClosed", "ToolCall", "RawPrompt"),
    }


def test_type_checkers_see_the_same_names():
    source = Path(guardrail.__file__).read_text(encoding="utf-8")
    (block,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imported = {alias.name for node in block.body for alias in node.names}
    assert imported == set(guardrail.__all__)
    assert Path(guardrail.__file__).with_name("py.typed").is_file()


def test_every_error_is_in_the_tree_and_has_one_root():
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert all(issubclass(error, guardrail.GuardrailError) for error in classes)
    assert all(error.__name__ in (errors.__doc__ or "") for error in classes)


def test_importing_needs_neither_torch_nor_transformers_nor_yaml():
    modules = ("plugins.manager", "policy.file", "vectors.values", "audit")
    light = "".join(f"import guardrail.{module};" for module in modules)
    heavy = "{'torch', 'transformers', 'nnsight', 'ruamel', 'scipy'}"
    code = f"import sys; {light} print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        guardrail.nothing  # noqa: B018
