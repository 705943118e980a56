"""The policies that are compared: those of a file, without what certifying must not do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from guardrail.files.yaml import read_document
from guardrail.plugins.packs import is_reference
from guardrail.policy.loading import BUILT_IN, located, resolve_calibration, resolve_vectors

CHANGED: Mapping[str, object] = {"require_certified": False, "audit": {}}
"""What is to be certified is not certified yet, and what is asked for that is no traffic."""
RESOLVERS: Mapping[str, Callable[[str, Path], Path]] = {
    "vectors": resolve_vectors,
    "calibration": resolve_calibration,
}
"""How the keys that name files find them."""


def comparable(file: Path) -> dict[str, object]:
    """The file's content for a guard, with paths that do not depend on where it lies. Raises PolicyError."""
    document = read_document(Path(str(located(file))))
    base = document.path.parent if document.path else Path()
    named = {key: document.data.get(key) for key in RESOLVERS}
    files = {
        key: str(RESOLVERS[key](name, base).resolve())
        for key, name in named.items()
        if isinstance(name, str) and name != BUILT_IN and not is_reference(name)
    }
    return {**document.data, **files, **CHANGED}
