"""Finetunes a model on conversations, with an intervention, evaluations and checkpoints.

    finetuned = finetune(model, tokenizer, conversations, FinetuneSettings(steps=80), intervention)

With a `folder` the run is kept there and resumed: killed at any moment and begun again, it ends with the same
weights. It then holds the checkpoints, and Trainer's state beside them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from guardrail.engines.transformers.blocks import text_config, unwrapped
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import ConfigError, PromptError
from guardrail.extract.journal import Report, silent
from guardrail.train.finetuning.checkpoints import Checkpoints, Evaluate, check_folder
from guardrail.train.finetuning.encoding import Encoded, encoded
from guardrail.train.finetuning.randomness import as_it_was
from guardrail.train.finetuning.results import Finetuned, FinetuneReport
from guardrail.train.finetuning.settings import FinetuneSettings
from guardrail.train.finetuning.trainer import (
    check_trainable,
    made_trainer,
    saved_in_private,
    without_patches,
)
from guardrail.train.intervention import Conversation, Intervention

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


def finetune(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    settings: FinetuneSettings,
    intervention: Intervention | None = None,
    *,
    folder: Path | None = None,
    evaluate: Evaluate | None = None,
    chat_template: str | None = None,
    report: Report = silent,
) -> Finetuned:
    """Train `model` in place on conversations that end in the assistant's reply.

    With `settings.lora` the result is a PEFT model around it, in which only the adapter was trained.
    `folder`: where checkpoints are kept; a run that was begun there with the same data and settings goes on.
    `evaluate` is called before the first step, every `evaluate_every` steps and after the last one. Random
    generators are left as they were. Raises PromptError with the place of a conversation that cannot be
    trained on, ModelError for weights that cannot be trained, SteeringError if the intervention did not act.
    """
    begun, done = time.monotonic(), intervention or Intervention()
    check_trainable(model, settings)
    renderer = Renderer(tokenizer, chat_template)
    longest = min(longest_of(model), settings.max_tokens)
    rows = encode_all(renderer, done.prepared(conversations, settings.seed), settings, longest)
    if folder is not None:
        check_folder(folder, _recipe(model, renderer, rows, done, settings))
    with TemporaryDirectory() as own, as_it_was(), without_patches(model), saved_in_private(), done:
        kept = Checkpoints(folder or Path(own), done, evaluate, settings, report)
        trainer = made_trainer(model, tokenizer, rows, settings, folder or Path(own), [done, kept])
        trainer.train(resume_from_checkpoint=kept.restore())
        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    did = _report(settings, rows, trained, trainer.state, kept, time.monotonic() - begun)
    return Finetuned(
        model=trained.eval(), report=replace(did, intervention=intervention and intervention.applied)
    )


def _report(
    settings: FinetuneSettings,
    rows: Sequence[Encoded],
    trained: Any,
    state: Any,
    kept: Checkpoints,
    seconds: float,
) -> FinetuneReport:
    """What was done, by `state` of the trainer, without the intervention."""
    return FinetuneReport(
        settings=settings,
        data_sha256=digest(rows),
        conversations=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        trained_tokens=sum(row.trained for row in rows),
        parameters=sum(p.numel() for p in trained.parameters() if p.requires_grad),
        intervention=None,
        steps=state.global_step,
        losses=tuple(line["loss"] for line in state.log_history if "loss" in line),
        evaluations=kept.evaluations,
        resumed_at=kept.resumed_at,
        seconds=seconds,
        versions={name: version(name) for name in LIBRARIES},
    )


def _recipe(
    model: Any,
    renderer: Renderer,
    rows: Sequence[Encoded],
    intervention: Intervention,
    settings: FinetuneSettings,
) -> dict[str, Any]:
    """What a folder of checkpoints was begun with, and has to be gone on with."""
    own = fingerprint(model, renderer.tokenizer, renderer.template, renderer.arguments)
    made = {"data": digest(rows), "intervention": asdict(intervention.applied)}
    return {**made, **asdict(own), **asdict(settings)}


def encode_all(
    renderer: Renderer, conversations: Sequence[Conversation], settings: FinetuneSettings, longest: int
) -> list[Encoded]:
    """Every conversation in tokens. Raises PromptError with the place of one that cannot be trained on."""
    if not conversations:
        raise ConfigError("there is no conversation to train on")
    found: list[Encoded] = []
    for i, conversation in enumerate(conversations, 1):
        try:
            found.append(_fitting(encoded(renderer, conversation, settings.loss), longest))
        except PromptError as error:
            raise PromptError(f"conversation {i}: {error}") from error
    return found


def _fitting(one: Encoded, longest: int) -> Encoded:
    if len(one.ids) > longest:
        raise PromptError(f"{len(one.ids)} tokens; at most {longest} are allowed")
    return one


def longest_of(model: Any) -> int:
    """The longest sequence that a model takes."""
    return int(getattr(text_config(unwrapped(model)), "max_position_embeddings", None) or 1 << 30)


def digest(rows: Sequence[Encoded]) -> str:
    """The SHA-256 of what is trained on, in its order."""
    found = hashlib.sha256()
    for row in rows:
        found.update(repr((row.ids, row.labels)).encode())
    return found.hexdigest()
