"""Stores states of prompts (last token, every layer) in files that can be read one layer at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from guardrail.extract.journal import Report, silent
from guardrail.extract.prompts import RolloutPrompt, prompts_sha256
from guardrail.extract.subject import Subject
from guardrail.types import Array

CHUNK = 256


def stored_states(
    subject: Subject,
    prompts: Sequence[RolloutPrompt],
    folder: Path,
    stage: str,
    report: Report = silent,
) -> Array:
    """[L + 1, n, d_model] float32, memory-mapped from a complete file named after model and prompts."""
    path = folder / f"states-{_digest(subject, prompts)}.npy"
    if not path.is_file():
        part = path.with_suffix(".part")
        _fill(subject, prompts, part, stage, report)
        part.replace(path)
    return np.load(path, mmap_mode="r")


def _fill(subject: Subject, prompts: Sequence[RolloutPrompt], path: Path, stage: str, report: Report) -> None:
    shape = (subject.layers + 1, len(prompts), subject.d_model)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(prompts), CHUNK):
        chunk = prompts[start : start + CHUNK]
        file[:, start : start + CHUNK] = subject.prompt_states([p.messages for p in chunk]).swapaxes(0, 1)
        report(stage, start + len(chunk), len(prompts))
    file.flush()


def _digest(subject: Subject, prompts: Sequence[RolloutPrompt]) -> str:
    text = json.dumps([asdict(subject.fingerprint), prompts_sha256(prompts)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
