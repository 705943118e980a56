"""The shipped model's fingerprint, without loading it, and how an error says that a model is that one."""

from __future__ import annotations

import json

from guardrail.demo import FINGERPRINT
from guardrail.types import Fingerprint


def load_fingerprint() -> Fingerprint:
    """The fingerprint of the shipped model."""
    return Fingerprint(**json.loads(FINGERPRINT.read_text(encoding="utf-8")))


def other_sizes(theirs: Fingerprint, ours: Fingerprint) -> str:
    """The sizes of the model that something was made for, and of this one."""
    here = ", the built-in `demo`; name yours with --model" if ours == load_fingerprint() else ""
    return f"{theirs.layers} layers x {theirs.d_model}, this model has {ours.layers} x {ours.d_model}{here}"
