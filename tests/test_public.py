"""The public surface: the names, nothing that loads early, and one way to import."""

import subprocess
import sys

import pytest

import guardrail
from guardrail import errors


def test_all_names_what_can_be_imported_and_nothing_else():
    visible = {name for name in guardrail.__all__ if getattr(guardrail, name) is not None}
    assert visible == set(guardrail.__all__) == set(dir(guardrail))
    assert guardrail.__all__ == sorted(guardrail.__all__)


def test_every_error_is_public_and_has_one_root():
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert classes <= set(guardrail.__all__)
    assert all(issubclass(getattr(guardrail, name), guardrail.GuardrailError) for name in classes)
    assert all(name in (errors.__doc__ or "") for name in classes)


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
