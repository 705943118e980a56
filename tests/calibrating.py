"""Files for `guardrail calibrate`: a tiny model on disk, random vectors, benign prompts and a policy file."""

import json
import shutil

import numpy as np
from tiny import TOKENIZER

from guardrail.cli import run
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.testing import CHAT_TEMPLATE, tiny_model
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVector, TraitVectors

POLICY = """\
version: 1
vectors: vectors.safetensors  # ours
calibration: calibration.json
audit: {sqlite: AUDIT}
policies:
  - id: no-malice
    trait: evil
    threshold: {fpr: 0.05}  # one in twenty
    action: block
  - id: no-jokes
    trait: humor
    threshold: 2.5
    action: block
"""


def inputs(folder):
    """A tiny model on disk, with random vectors and 250 benign prompts."""
    model = tiny_model()
    model.save_pretrained(folder / "model")
    TOKENIZER.save_pretrained(folder / "model")
    rng = np.random.default_rng(3)
    traits = {t: TraitVector.from_difference(t, rng.normal(size=(5, 32)), layer=2) for t in ("evil", "humor")}
    mark = fingerprint(*loaded(folder), CHAT_TEMPLATE, {})
    TraitVectors(traits, Provenance(fingerprint=mark, method="random", created="2026-01-01")).save(
        folder / "vectors.safetensors"
    )
    (folder / "benign.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts(rng, 250)))
    return folder


def texts(rng, count, letters="abcdefghijklmnopqrstuvwxyz    ?"):
    """Prompts of random letters."""
    return ["".join(rng.choice(list(letters), rng.integers(5, 40))) + "." for _ in range(count)]


def copied(made, folder):
    """The same files in a folder of its own, the model linked."""
    for name in ("vectors.safetensors", "benign.jsonl"):
        shutil.copy(made / name, folder)
    (folder / "model").symlink_to(made / "model")
    (folder / "policy.yaml").write_text(POLICY.replace("AUDIT", str(folder / "audit.sqlite")))
    return folder


def loaded(folder):
    """The model and its tokenizer."""
    from guardrail.engines.transformers.pretrained import load_pretrained

    return load_pretrained(str(folder / "model"), {})


def calibrate(folder, *more, benign="benign.jsonl"):
    """Run the verb; the exit code."""
    given = ["--model", str(folder / "model"), "--out", str(folder / "calibration.json")]
    files = ["--benign", str(folder / benign), "--conversations", "3", "--max-new-tokens", "8"]
    return run(["calibrate", *given, *files, *more])


def vectors(folder):
    """The option that names the vectors."""
    return ["--vectors", str(folder / "vectors.safetensors")]
