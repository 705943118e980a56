"""The files that ship: their fingerprint and checksums."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from guardrail.demo import CALIBRATION, CHECKSUMS, FINGERPRINT, FOLDER, MODEL, TRAITS, VECTORS
from guardrail.demo.generator import Conversation
from guardrail.types import Fingerprint


def save_fingerprint(fingerprint: Fingerprint) -> None:
    """Writes it as JSON."""
    FINGERPRINT.write_text(json.dumps(asdict(fingerprint), indent=2) + "\n", encoding="utf-8")


def write_prompts(path: Path, drawn: Iterable[Conversation]) -> None:
    """JSON Lines as the command line reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"messages": c.messages}) + "\n" for c in drawn)
    path.write_text("".join(lines), encoding="utf-8")


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
