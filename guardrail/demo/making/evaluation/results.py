# pyright: basic
"""The results of the demo's evaluation, which save to JSON and load again."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from pydantic import TypeAdapter

from guardrail.demo.making.evaluation.capability import Capability
from guardrail.statistics.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Cell:
    """Replies under one condition; `facts` is the share of stated facts that are right."""

    score: Estimate
    coherence: Estimate
    sd: float
    """The standard deviation of the scores of single replies."""
    facts: Estimate | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A pole on its trait's probe at the chosen layer, on last prompt tokens."""

    layer: int
    auroc: Estimate
    auroc_vs_other_traits: Estimate
    tpr_at_1pct_fpr: Estimate
    fires_on_other_poles: Mapping[str, Estimate]
    fpr_fresh: Estimate
    """On fresh prompts of the population that was calibrated on."""
    fpr_unseen_phrasings: Estimate
    vs_others_raw: Estimate
    """AUROC against other traits of the raw difference vector, at its best layer."""
    vs_others_orthogonalised: Estimate
    """The same without what it shares with the other traits' vectors."""


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Correlations with judged replies over mixed conditions; `within` is inside each system level."""

    r_overall: Estimate
    r_within: Estimate
    r_one_reply: Estimate
    oracle_overall: Estimate
    oracle_within: Estimate
    label_only: Estimate
    reliability_one: float
    """r between two single replies to the same prompt."""
    reliability_mean: float
    """The same for means of all replies (Spearman-Brown)."""


@dataclass(frozen=True, slots=True)
class Steered:
    """One way of steering a pole's trait."""

    prompts: str
    operator: str
    cell: Cell


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the card shows of one seed, by pole; `coherence` is by material, `steering` by trait."""

    seed: int
    conditions: Mapping[str, Mapping[str, Cell]]
    history: Mapping[str, Mapping[str, Estimate]]
    pressure: Mapping[str, Estimate]
    coherence: Mapping[str, Estimate]
    capability: Capability
    detection: Mapping[str, Detection]
    monitoring: Mapping[str, Monitoring]
    steering: Mapping[str, Sequence[Steered]]
    reply_seconds: float
    """A reply of 40 tokens, one thread."""
    load_seconds: float

    def save(self, path: Path) -> None:
        """Writes JSON, with the machine and the versions that it was measured with."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": environment(), **asdict(self)}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """Reads what `save` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("environment")
        return TypeAdapter(cls).validate_python(content)


def environment() -> dict[str, str]:
    """Where numbers come from: commit, machine, versions."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
