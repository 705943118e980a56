"""Names in an action's configuration that plugins must have registered, checked when a file is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, cast

from pydantic import ValidationInfo

from guardrail.problems import suggest

Kind = Literal["rephraser", "escalation sink"]


def known_name(name: str, kind: Kind, info: ValidationInfo) -> str:
    """The name, or ValueError where the validation context lists this kind and not the name."""
    context = cast("Mapping[str, Collection[str]]", info.context or {})
    known = context.get(kind)
    if known is not None and name not in known:
        raise ValueError(f"unknown {kind} `{name}`{suggest(name, known)}")
    return name
