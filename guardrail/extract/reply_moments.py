"""Sums up the states of kept rollouts at every layer and three positions. Resumable by batch.

The ids of a prompt and its reply are concatenated, never re-tokenised as one text, so that the border between
them stays where it was at generation. The end token is not part of the reply.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from guardrail.engines import Continuation
from guardrail.extract.filter import Pair
from guardrail.extract.journal import Report, silent
from guardrail.extract.judgements import Judged
from guardrail.extract.moments import Moments
from guardrail.extract.rollouts import Rollouts
from guardrail.extract.subject import Subject
from guardrail.types import Array

FILE = "moments.safetensors"
PAIRS = 64
"""How many pairs are read between two saves."""


def reply_moments(
    subject: Subject, judged: Judged, pairs: Sequence[Pair], folder: Path, report: Report = silent
) -> Moments:
    """The sums over all kept pairs. Pairs already summed in `folder` are not read again."""
    rollouts = judged.rollouts
    recipe = _recipe(judged, pairs)
    questions = 1 + max((prompt.cluster for prompt in rollouts.prompts), default=0)
    moments = Moments.load(folder / FILE, recipe) or Moments.empty(questions, subject.layers, subject.d_model)
    stage = f"{rollouts.journal.recipe['pool']}: activations"
    report(stage, min(moments.batches * PAIRS, len(pairs)), len(pairs))
    for start in range(moments.batches * PAIRS, len(pairs), PAIRS):
        _add(moments, subject, rollouts, pairs[start : start + PAIRS])
        moments.save(folder / FILE, recipe)
        report(stage, min(start + PAIRS, len(pairs)), len(pairs))
    return moments


def reply_states(subject: Subject, rollouts: Rollouts, rows: Sequence[int]) -> Array:
    """[rows, positions, L + 1, d_model] float32, in the order of POSITIONS."""
    asked = [rollouts.place(row)[0] for row in rows]
    rendered = {prompt: subject.render(rollouts.prompts[prompt].messages).ids for prompt in set(asked)}
    prompts = [rendered[prompt] for prompt in asked]
    replies = [spoken(rollouts.reply(row)) for row in rows]
    ids = [[*prompt, *reply] for prompt, reply in zip(prompts, replies, strict=True)]
    spans = [
        [(len(prompt), len(whole)), (len(prompt) - 1, len(prompt)), (0, len(prompt))]
        for prompt, whole in zip(prompts, ids, strict=True)
    ]
    return subject.means(ids, spans)


def spoken(reply: Continuation) -> tuple[int, ...]:
    """The reply without its end token, unless it consists of nothing else."""
    return reply.ids[:-1] if reply.ended and len(reply.ids) > 1 else reply.ids


def _add(moments: Moments, subject: Subject, rollouts: Rollouts, pairs: Sequence[Pair]) -> None:
    rows = [row for pair in pairs for row in (pair.positive, pair.negative)]
    states = reply_states(subject, rollouts, rows)
    for pair, positive, negative in zip(pairs, states[::2], states[1::2], strict=True):
        moments.add(pair.question, positive, negative)
    moments.batches += 1


def _recipe(judged: Judged, pairs: Sequence[Pair]) -> str:
    digest = hashlib.sha256(json.dumps([judged.journal.recipe, PAIRS], sort_keys=True).encode())
    for pair in pairs:
        digest.update(f"{pair.positive} {pair.negative}\n".encode())
    return digest.hexdigest()
