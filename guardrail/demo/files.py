"""The files that ship: their fingerprint and checksums."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from guardrail.demo import CALIBRATION, CHECKSUMS, FINGERPRINT, FOLDER, MODEL, TRAITS, VECTORS
from guardrail.types import Array, Fingerprint

DIFFERENCES = "differences.safetensors"


def load_fingerprint() -> Fingerprint:
    """The fingerprint of the shipped model, without loading it."""
    return Fingerprint(**json.loads(FINGERPRINT.read_text(encoding="utf-8")))


def save_fingerprint(fingerprint: Fingerprint) -> None:
    """Writes it as JSON."""
    FINGERPRINT.write_text(json.dumps(asdict(fingerprint), indent=2) + "\n", encoding="utf-8")


def save_differences(work: Path, differences: Mapping[str, Array]) -> None:
    """Keeps the raw difference vectors, which the evaluation compares the shipped ones with."""
    work.mkdir(parents=True, exist_ok=True)
    save_file({t: np.ascontiguousarray(rows) for t, rows in differences.items()}, work / DIFFERENCES)


def load_differences(work: Path) -> dict[str, Array]:
    """{trait: [L + 1, d_model]} as kept by `save_differences`."""
    return load_file(work / DIFFERENCES)


def checksums() -> dict[str, str]:
    """The sha256 of every shipped file, by its path inside the package."""
    return {str(path.relative_to(FOLDER)): _sha256(path) for path in _shipped()}


def save_checksums() -> None:
    """Writes `checksums.txt`, as `sha256sum --check` reads it."""
    CHECKSUMS.write_text(
        "".join(f"{digest}  {name}\n" for name, digest in checksums().items()), encoding="utf-8"
    )


def load_checksums() -> dict[str, str]:
    """What `checksums.txt` says."""
    lines = CHECKSUMS.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def _shipped() -> list[Path]:
    return sorted((*MODEL.iterdir(), *TRAITS.iterdir(), VECTORS, CALIBRATION, FINGERPRINT))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
