"""The fingerprint that a policy file is checked against; a model is loaded only where there is no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.errors import ModelError

if TYPE_CHECKING:
    from guardrail.types import Fingerprint


def fingerprint_of(model: str, file: Path | None = None) -> Fingerprint:
    """From a JSON file (a fingerprint, or a calibration that holds one), else of the model."""
    if file is not None:
        return read_fingerprint(file)
    if model == "demo":
        from guardrail.demo import FINGERPRINT

        return read_fingerprint(FINGERPRINT)
    from guardrail.engines.transformers.pretrained import load_pretrained
    from guardrail.plugins.manager import Plugins

    engine = Plugins.from_environment().engine("transformers", *load_pretrained(model, {}))
    try:
        return engine.fingerprint
    finally:
        engine.close()


def read_fingerprint(file: Path) -> Fingerprint:
    """Read a fingerprint from JSON. Raises ModelError where there is none."""
    from pydantic import TypeAdapter

    from guardrail.types import Fingerprint

    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(Fingerprint).validate_python(data.get("fingerprint", data))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{file}: cannot be read as a fingerprint: {error}") from error
