"""The built-in demo: a small chat model with seven real, graded traits, and the closed world it talks about.

Importing this package loads neither torch nor transformers.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
MODEL = FOLDER / "model"
"""A Hugging Face folder."""
VECTORS = FOLDER / "vectors.safetensors"
CALIBRATION = FOLDER / "calibration.json"
FINGERPRINT = FOLDER / "fingerprint.json"
CHECKSUMS = FOLDER / "checksums.txt"
TRAITS = FOLDER / "traits"
CARD = FOLDER / "README.md"

__all__ = ["CALIBRATION", "CARD", "CHECKSUMS", "FINGERPRINT", "FOLDER", "MODEL", "TRAITS", "VECTORS"]
