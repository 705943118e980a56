"""A model that exists on paper: 4 layers x 32, three traits, and a calibration of 999 benign prompts."""

import numpy as np
from hypothesis import settings

from guardrail.calibration.benign import Benign
from guardrail.calibration.values import Calibration
from guardrail.plugins.manager import Plugins
from guardrail.policy.loading import load
from guardrail.testing import hand_made_vectors, tiny_fingerprint

CALM = settings(deadline=None, derandomize=True)
"""For property tests: the same examples every time, and no time limit on a busy machine."""

TRAITS = ("evil", "sycophancy", "hallucination")
FINGERPRINT = tiny_fingerprint()
VECTORS = hand_made_vectors(TRAITS, FINGERPRINT)


def benign(seed, n=999):
    """Benign projections with mean 1 and standard deviation 2."""
    return Benign.of(np.random.default_rng(seed).normal(1.0, 2.0, n))


def calibration(vectors=VECTORS, n=999):
    table = {
        trait: {
            layer: benign(10 * i + layer, n) for layer in range(1, vectors.provenance.fingerprint.layers + 1)
        }
        for i, trait in enumerate(vectors)
    }
    return Calibration(
        fingerprint=vectors.provenance.fingerprint,
        vectors_sha256=vectors.sha256,
        population="normal numbers",
        created="2026-01-01",
        probes=table,
        steering=table,
    )


def world(folder):
    """Write the vectors and the calibration that the YAML files in tests/policies name."""
    VECTORS.save(folder / "vectors.safetensors")
    calibration().save(folder / "calibration.json")
    return folder


def rule(**keys):
    """One policy as it stands in a file."""
    return {"id": "p", "trait": "evil", "layer": 2, "threshold": 2.0, "action": "block"} | keys


def policies(folder, *rules, **keys):
    """A whole file as a mapping, on the paper model."""
    paths = {"vectors": str(folder / "vectors.safetensors"), "calibration": str(folder / "calibration.json")}
    return {"version": 1, **paths, "policies": list(rules), **keys}


def loaded(folder, *rules, **keys):
    return load(policies(folder, *rules, **keys), FINGERPRINT, Plugins())
