"""The policy file that `guardrail vectors fit --policy` writes, and what to run next."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrail.vectors.values import TraitVectors

PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
HEADER = """\
# Blocks prompts that show a trait. Its thresholds need a calibration:
# guardrail calibrate --model MODEL --benign BENIGN.jsonl --apply THIS-FILE --set-calibration --write
version: 1
"""


def policy_text(vectors: TraitVectors, out: Path, policy: Path, fpr: float) -> str:
    """One policy that blocks for each trait, at a false-positive rate that a calibration resolves."""
    name = Path(os.path.relpath(out.resolve(), policy.resolve().parent)).as_posix()
    rules = [_rule(trait, fpr) for trait in vectors]
    return f"{HEADER}vectors: {_quoted(name)}\npolicies:\n{''.join(rules)}"


def _rule(trait: str, fpr: float) -> str:
    return (
        f"  - id: {_quoted(f'no-{trait}')}\n"
        f"    trait: {_quoted(trait)}\n"
        "    layer: auto\n"
        f"    threshold: {{fpr: {fpr:g}}}\n"
        "    action: block\n"
    )


def _quoted(text: str) -> str:
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def next_steps(out: Path, policy: Path | None, benign: Path | None, model: str) -> str:
    """The next commands."""
    named, made = shlex.quote(model), out.with_name(f"{out.stem}-calibration.json")
    harmless = benign or "BENIGN.jsonl"
    if policy is None:
        return (
            "next: write a policy (or fit again with --policy FILE), and set its threshold on harmless "
            f"prompts that the fit has not seen:\n  guardrail calibrate --model {named} --vectors {out} "
            f"--benign {harmless} --out {made}"
        )
    return (
        "next: set the thresholds on harmless prompts that the fit has not seen, then try it:\n"
        f"  guardrail calibrate --model {named} --benign {harmless} --apply {policy} --set-calibration "
        f"--write --conversations 0 --out {made}\n"
        f'  guardrail check --model {named} --policies {policy} "a prompt"'
    )
