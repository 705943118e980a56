"""Vectors, plans and guards whose scores can be computed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from guardrail.policy.model import Defaults
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.testing.tiny import CHAT_TEMPLATE, tiny_fingerprint, tiny_model, tiny_tokenizer
from guardrail.types import Fingerprint, Mode, Probe
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

if TYPE_CHECKING:
    from guardrail.guard import Guard


def hand_made_vectors(
    traits: Sequence[str] = ("evil", "sycophancy"), fingerprint: Fingerprint | None = None
) -> TraitVectors:
    """Vectors along coordinate axes: trait number i steers and reads coordinate i, at every layer."""
    fingerprint = fingerprint or tiny_fingerprint()
    axes = np.eye(fingerprint.d_model, dtype=np.float32)
    rows = fingerprint.layers + 1
    vectors = {
        trait: TraitVector.from_difference(trait, np.tile(axes[i], (rows, 1)), layer=max(1, rows // 2))
        for i, trait in enumerate(traits)
    }
    provenance = Provenance(fingerprint=fingerprint, method="hand-made", created="2026-01-01")
    return TraitVectors(vectors, provenance)


def hand_made_plan(
    threshold: float = 0.0,
    action: str = "block",
    layer: int = 2,
    d_model: int = 32,
    mode: Mode = "enforce",
    message: str | None = None,
) -> Plan:
    """One policy `test` on `evil`, whose score is coordinate 0 of the residual stream at `layer`."""
    weights = np.eye(1, d_model, dtype=np.float32)[0]
    condition = CompiledCondition(trait="evil", layer=layer, reading=0, threshold=threshold, raw=threshold)
    settings = Defaults(mode=mode)
    rule = Rule(
        id="test", conditions=(condition,), action=action, mode=mode, message=message, settings=settings
    )
    return Plan(probes=(Probe(trait="evil", layer=layer, weights=weights),), rules=(rule,))


def tiny_guard(
    folder: Path, policies: Mapping[str, object], plugins: Sequence[object] = (), seed: int = 0
) -> Guard:
    """A guard on a tiny model, with hand-made vectors in `folder`. Close it, or use `with`.

    `policies` is the content of a policy file; `version` and `vectors` are filled in.
    """
    from guardrail.engines.transformers.fingerprint import fingerprint
    from guardrail.guard import Guard

    model, tokenizer = tiny_model(seed=seed), tiny_tokenizer()
    path = folder / "vectors.safetensors"
    hand_made_vectors(fingerprint=fingerprint(model, tokenizer, CHAT_TEMPLATE, {})).save(path)
    complete = {"version": 1, "vectors": str(path), **policies}
    return Guard(model, tokenizer, policies=complete, plugins=plugins)
