"""Reports of evaluations and benchmarks: one HTML file with embedded figures; no network, no script.

Needs the extra `report` (jinja2, matplotlib, scikit-learn). Importing this package loads none of them.
"""

from importlib.util import find_spec

from guardrail.errors import ConfigError

NEEDED = ("jinja2", "matplotlib")


def check_installed() -> None:
    """Raises ConfigError if the extra `report` is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"a report needs {' and '.join(missing)}: pip install 'persona-guardrail[report]'")


__all__ = ["check_installed"]
