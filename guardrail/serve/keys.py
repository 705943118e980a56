"""API keys: who may ask, what is tagged, how much at once. The configuration holds hashes, never keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Key(BaseModel):
    """One key of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
