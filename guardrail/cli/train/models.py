"""The models of `guardrail train`: the base, and finetunes of it (weights, adapters, checkpoints)."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.console import note
from guardrail.cli.models import (
    exact,
    imagined,
    load,
    load_vectors,
    loading,
    only_transformers,
    sleep_while_waiting,
    subject_of,
)
from guardrail.cli.options import DEMO, ModelOptions
from guardrail.cli.placement import arguments_of, placed
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject
    from guardrail.train.checkpoints import Adapter
    from guardrail.train.shift.descent import Ancestor
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions(ModelOptions):
    """The base model, and how it and its finetunes are loaded."""

    name: Annotated[
        str, Option("--base", help="Base model: hub id, folder, GGUF file, or `demo`, the built-in one.")
    ] = DEMO


def vectors_for(base: ModelOptions, name: str | None) -> TraitVectors:
    """The vectors of `--vectors`, or the built-in ones of the built-in model. Raises ConfigError."""
    if name is None and base.name != DEMO:
        raise ConfigError("no vectors: name a file of the base model's vectors with --vectors")
    return checked_vectors(base, load_vectors(name or DEMO))


def checked_vectors(base: ModelOptions, vectors: TraitVectors) -> TraitVectors:
    """Raises VectorError for vectors of another base, as far as that is known before it is loaded."""
    fingerprint = imagined(base, vectors)
    from guardrail.train.shift.descent import check_base

    check_base(vectors, base.name, fingerprint)
    return vectors


def named(tuned: Sequence[str]) -> list[str]:
    """All checkpoints that are meant, in order. Raises ModelError for one that is not there."""
    from guardrail.engines.transformers.pretrained import configuration
    from guardrail.train.checkpoints import Adapter, checkpoints

    found = list(dict.fromkeys(one for name in tuned for one in checkpoints(name)))
    sleep_while_waiting()
    for name in found:
        # before the base is loaded and read
        if Adapter.find(name) is None:
            configuration(name, {})
    return found


def one_named(tuned: str, option: str) -> str:
    """The model that is meant. Raises ConfigError for a training run with several checkpoints."""
    found = named([tuned])
    if len(found) > 1:
        raise ConfigError(f"{option}: {tuned} holds {len(found)} checkpoints; name one, such as {found[-1]}")
    return found[0]


def load_finetune(
    name: str,
    base: ModelOptions,
    ancestor: Ancestor,
    rows: int | None = None,
    untemplated: str | None = None,
) -> Subject:
    """A finetune of the base: a model of its own, or an adapter, which is put on the base.

    untemplated: the chat template of one that has none, as in `load_subject`. Raises ModelError if it cannot
    be loaded, and for an adapter of another base.
    """
    from guardrail.train.checkpoints import Adapter

    only_transformers(base)
    gc.collect()
    if adapter := Adapter.find(name):
        return _adapted(adapter, base, ancestor, rows, untemplated)
    return _whole(replace(base, name=name), ancestor, rows, untemplated)


def _adapted(
    adapter: Adapter, base: ModelOptions, ancestor: Ancestor, rows: int | None, untemplated: str | None
) -> Subject:
    if said := adapter.check_base(base.name, ancestor.fingerprint.weights):
        note(said)
    with loading(replace(base, name=str(adapter.folder))):
        model, tokenizer = load(base, exact(base))
        return subject_of(adapter.on(model), tokenizer, base, rows, untemplated)


def _whole(tuned: ModelOptions, ancestor: Ancestor, rows: int | None, untemplated: str | None) -> Subject:
    from guardrail.train.checkpoints import has_tokenizer

    with loading(tuned):
        from guardrail.engines.transformers.pretrained import load_pretrained

        # the Trainer saves none with its checkpoints unless it is told to
        borrowed = None if has_tokenizer(tuned.name) else ancestor.tokenizer
        model, tokenizer = load_pretrained(tuned.name, arguments_of(tuned, exact(tuned)), borrowed)
        return subject_of(placed(model, tuned), tokenizer, tuned, rows, untemplated)
