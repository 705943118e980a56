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
# {calibrate}
# Measure it before you enforce it; `mode: shadow` only scores and logs.
version: 1
"""


def policy_text(vectors: TraitVectors, out: Path, policy: Path, fpr: float, calibrate: str) -> str:
    """One policy that blocks for each trait, at a false-positive rate that a calibration resolves."""
    name = Path(os.path.relpath(out.resolve(), policy.resolve().parent)).as_posix()
    rules = [_rule(trait, fpr) for trait in vectors]
    head = HEADER.format(calibrate=calibrate)
    return f"{head}vectors: {_quoted(name)}\npolicies:\n{''.join(rules)}"


def calibration(model: str, policy: Path, out: Path, benign: Path | None) -> str:
    """The command that sets the policy's thresholds."""
    return (
        f"guardrail calibrate --model {shlex.quote(model)} --benign {benign or 'BENIGN.jsonl'} "
        f"--apply {policy} --set-calibration --write --conversations 0 --out {_calibrated(out)}"
    )


def _calibrated(out: Path) -> Path:
    return out.with_name(f"{out.stem}-calibration.json")


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
    named = shlex.quote(model)
    if policy is None:
        return (
            "next: write a policy (or fit again with --policy FILE), and set its threshold on harmless "
            f"prompts that the fit has not seen:\n  guardrail calibrate --model {named} --vectors {out} "
            f"--benign {benign or 'BENIGN.jsonl'} --out {_calibrated(out)}"
        )
    return (
        "next: set the thresholds on harmless prompts that the fit has not seen, then try it:\n"
        f"  {calibration(model, policy, out, benign)}\n"
        f'  guardrail check --model {named} --policies {policy} "a prompt"'
    )
