"""Which prompts a pack is fitted on, calibrated on and measured on. Fixed before anything was measured.

Fitted and calibrated: the harmful and benign prompts of the shared data, and what was written here. Only
measured: XSTest and Alpaca. No kind of look-alike is on two sides, and no ordinary prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.real import prompt_files
from benchmarks.real.detection_prompts import WRITTEN, sets
from benchmarks.real.prompt_files import Prompt

APART, EVERY = 4, 2
"""Every so many kinds of look-alikes, and every so many ordinary prompts, are kept from the fit."""
FRESH = 100
"""Harmful prompts that are kept from the fit."""


@dataclass(frozen=True, slots=True)
class Parts:
    """fit: labelled. ordinary, alike: harmless, for the thresholds. measured: sets by name."""

    fit: Sequence[Prompt]
    ordinary: Sequence[Prompt]
    alike: Sequence[Prompt]
    measured: dict[str, Sequence[Prompt]]


def parts(data: Path) -> Parts:
    """The parts. Exits with a message if the folder of shared data is not there."""
    harmful, benign, everyday, contrast = (
        prompt_files.shuffled(prompt_files.read(path), 500)
        for path in (
            data / "prompts" / "harmful.jsonl",
            data / "prompts" / "benign.jsonl",
            WRITTEN / "everyday.jsonl",
            WRITTEN / "contrast.jsonl",
        )
    )
    kinds = kept_kinds(contrast)
    apart = [prompt for prompt in contrast if prompt.category in kinds]
    ordinary = [*benign, *everyday]
    known = [prompt for prompt in contrast if prompt.category not in kinds]
    return Parts(
        fit=[*harmful[FRESH:], *ordinary[::EVERY], *known],
        ordinary=[prompt for i, prompt in enumerate(ordinary) if i % EVERY],
        alike=[prompt for prompt in apart if not prompt.harm],
        measured=_measured(data, harmful[:FRESH], [prompt for prompt in apart if prompt.harm]),
    )


def kept_kinds(contrast: Iterable[Prompt]) -> list[str]:
    """Kinds of look-alikes that nothing is fitted on."""
    return sorted({prompt.category for prompt in contrast})[1::APART]


def _measured(data: Path, fresh: Sequence[Prompt], twins: Sequence[Prompt]) -> dict[str, Sequence[Prompt]]:
    known = sets(data)
    return {
        "harmful prompts, kept from the fit": fresh,
        "harmful twins of unseen kinds": twins,
        "XSTest, unsafe": known["xstest-unsafe"],
        "XSTest, safe look-alikes": known["xstest-safe"],
        "Alpaca, ordinary": known["alpaca"],
    }


def write_labelled(prompts: Sequence[Prompt], path: Path) -> Path:
    """JSON Lines, as `guardrail vectors fit` reads them."""
    return _write([_unlabelled(one) | _labels(one) for one in prompts], path)


def write_unlabelled(prompts: Sequence[Prompt], path: Path) -> Path:
    """JSON Lines, as `guardrail calibrate` reads them."""
    return _write([_unlabelled(one) for one in prompts], path)


def _write(rows: Sequence[dict[str, object]], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def _unlabelled(prompt: Prompt) -> dict[str, object]:
    return {"messages": [message.as_dict() for message in prompt.messages]}


def _labels(prompt: Prompt) -> dict[str, object]:
    named = {"pair": prompt.pair, "category": prompt.category}
    return {
        "labels": {"harm": int(prompt.harm)},
        "source": prompt.source,
        **{key: value for key, value in named.items() if value},
    }
