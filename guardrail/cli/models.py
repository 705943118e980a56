"""What verbs load: guards, models, fingerprints, vectors. Policies are checked before a model is loaded."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.cli.console import Interrupted
from guardrail.cli.options import (
    DEMO,
    ENGINE,
    Dtype,
    ModelOptions,
    RunnerOptions,
    Runners,
)
from guardrail.cli.placement import arguments_of, device_of, placed
from guardrail.cli.progress import doing
from guardrail.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from guardrail import Guard
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.extract.subject import Subject
    from guardrail.types import Fingerprint, Glimpse
    from guardrail.vectors.values import TraitVectors


WATCH_S = 2.0
"""How often verbs that run for long look for a changed policy file."""


def open_guard(
    model: ModelOptions,
    policies: Path | dict[str, object] | None,
    watch_s: float | None = None,
    plugins: Sequence[object] = (),
) -> Guard:
    """Load and guard a model. Raises ConfigError. Only the built-in model has default policies."""
    from guardrail.plugins.registry import names_in_environment
    from guardrail.policy.loading import default_policies

    check_engine(model.engine)
    source = policies or default_policies(model.name)
    if isinstance(source, Path):
        check_policies(source, model)
    with loading(model):
        from guardrail import Guard

        return Guard(
            *load(model),
            source,
            engine=model.engine,
            plugins=[*names_in_environment(), *plugins],
            chat_template=model.chat_template,
            watch_s=watch_s,
        )


def check_engine(name: str) -> None:
    """Raises PluginError for an engine that nobody has, before a model is loaded."""
    from guardrail.plugins.hookspecs import ENGINES

    if name not in ENGINES:
        from guardrail.plugins.manager import Plugins

        Plugins.from_environment().knowing(name).check_engine(name)


def check_policies(path: Path, model: ModelOptions) -> None:
    """Raises PolicyError, with every problem, for a policy file that does not even fit its own vectors."""
    from guardrail.files.yaml import read_document
    from guardrail.plugins.manager import Plugins
    from guardrail.plugins.packs import is_reference
    from guardrail.policy.file import draft
    from guardrail.policy.loading import check

    if is_reference(str(path)):
        return  # of the pack that fits the model; that some pack has such policies was seen
    # the built-in model loads at once and checks the rest
    if model.name != DEMO or draft(read_document(path)).problems:
        check(path, Plugins.from_environment(), glimpse_of(model))


def glimpse_of(model: ModelOptions) -> Glimpse | None:
    """What is known of a model before it is loaded. None for other engines, and `demo`, which loads fast."""
    from guardrail.plugins.hookspecs import ENGINES

    if model.name == DEMO or model.engine not in ENGINES:
        return None
    sleep_while_waiting()
    from guardrail.engines.transformers.glimpse import glimpse

    return glimpse(model.name)


def imagined(model: ModelOptions, vectors: TraitVectors) -> Fingerprint:
    """The model's fingerprint as far as it is known before loading; the rest is as the vectors have it."""
    theirs, seen = vectors.provenance.fingerprint, glimpse_of(model)
    return seen.imagined(theirs) if seen else theirs


def load_subject(
    model: ModelOptions,
    rows: int | None = None,
    spread: RunnerOptions | None = None,
    untemplated: str | None = None,
) -> Subject:
    """A model to generate with and to read. `rows` is the largest batch. Raises ConfigError.

    untemplated: the chat template of a model that has none; without it such a model is refused.
    """
    only_transformers(model)
    if spread and spread.runner is Runners.RAY:
        return _spread(model, rows, spread)
    with loading(model):
        return subject_of(*load(model, exact(model)), model, rows, untemplated)


def exact(model: ModelOptions) -> Dtype:
    """What the dtype `auto` means for verbs that measure: float32 on a CPU."""
    return Dtype.FLOAT32 if device_of(model.device) == "cpu" else Dtype.AUTO


def subject_of(
    loaded: Any, tokenizer: Any, model: ModelOptions, rows: int | None, untemplated: str | None
) -> Subject:
    """With the template of --chat-template, or the tokenizer's own, or `untemplated` if it has none."""
    from guardrail.extract.subject import ROWS, Subject

    own = getattr(tokenizer, "chat_template", None)
    template = model.chat_template or (None if own else untemplated)
    return Subject(loaded, tokenizer, chat_template=template, rows=rows or ROWS)


def _spread(model: ModelOptions, rows: int | None, spread: RunnerOptions) -> Subject:
    """A model here, whose batches are computed by workers that load it as well."""
    from guardrail.extract.ray_workers import RayRunner, check_installed

    check_installed()
    subject = load_subject(model, rows)
    gpus = 0 if subject.device.type == "cpu" else 1
    subject.runner = RayRunner(partial(load_subject, model, rows), spread.workers, gpus)
    return subject


def only_transformers(model: ModelOptions) -> None:
    """Raises ConfigError for an engine that is not the one this verb has to use."""
    if model.engine != ENGINE:
        raise ConfigError(f"--engine: this verb works with the engine `{ENGINE}` only, not `{model.engine}`")


def load(model: ModelOptions, auto: Dtype = Dtype.AUTO) -> tuple[Any, Any]:
    """(model, tokenizer) on the device that was asked for. `auto` is what the dtype `auto` means."""
    from guardrail.plugins.manager import Plugins

    plugins = Plugins.from_environment().knowing(model.engine)
    loaded, tokenizer = plugins.load(model.engine, model.name, arguments_of(model, auto))
    return placed(loaded, model), tokenizer


def sleep_while_waiting() -> None:
    """Call this before torch is imported, which reads the setting.

    Threads that spin while they wait took five times the processor time on a machine with other work.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def loading(model: ModelOptions) -> Generator[None]:
    """Says so, until the verb prints."""
    sleep_while_waiting()
    try:
        with doing(f"loading {model.name} ..."), _uncollected():
            silence(model)
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted while {model.name} was loaded; nothing was done") from None


@contextmanager
def _uncollected() -> Generator[None]:
    """No garbage collection: libraries and a model stay, and looking through them again and again is slow."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def silence(model: ModelOptions) -> None:
    """Errors only from transformers, and a bar only for a model that takes a while, on a terminal."""
    quiet = model.name == DEMO or not sys.stderr.isatty()
    from transformers.utils import logging

    logging.set_verbosity_error()
    # it has a word for every layer of a model
    getLogger("bitsandbytes").setLevel(ERROR)
    if quiet:
        logging.disable_progress_bar()


def fingerprint_of(model: ModelOptions, file: Path | None = None) -> Fingerprint:
    """Read from a JSON file (a fingerprint, or a calibration that holds one), else taken from the model."""
    if file is not None:
        return read_fingerprint(file)
    if model.name == DEMO and model.chat_template is None and model.engine == ENGINE:
        from guardrail.demo import FINGERPRINT

        return read_fingerprint(FINGERPRINT)
    from guardrail.plugins.manager import Plugins

    with loading(model):
        plugins = Plugins.from_environment().knowing(model.engine)
        engine = plugins.engine(model.engine, *load(model), chat_template=model.chat_template)
    try:
        return engine.fingerprint
    finally:
        engine.close()


def read_fingerprint(file: Path) -> Fingerprint:
    """Read a fingerprint from JSON. Raises ModelError if the file holds none."""
    from guardrail.files import json_text
    from guardrail.types import Fingerprint

    try:
        data = json_text.read(file)
        nested = isinstance(data, dict) and "fingerprint" in data
        return json_text.validated(Fingerprint, data["fingerprint"] if nested else data)
    except ValueError as error:
        raise ModelError(f"{file}: cannot be read as a fingerprint: {error}") from error


def load_vectors(name: str) -> TraitVectors:
    """A vector file, `demo` or `pack:NAME`. Raises ConfigError."""
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    return TraitVectors.load(resolve_vectors(name, Path()))


def vectors_of(model: str, name: str | None, file: PolicyFile | None) -> TraitVectors:
    """The vectors of `--vectors`, else of the policy file, else the built-in ones of the built-in model.

    Raises ConfigError if there are none, or if `--vectors` is not what the policy file names.
    """
    from guardrail.plugins.pack import AUTO
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    if name is None and file is None and model != DEMO:
        raise ConfigError("no vectors: name a file with --vectors, or a policy file that names one")
    if name and file and file.policies.vectors == AUTO:
        return load_vectors(name)
    own = file.vectors if file else resolve_vectors(DEMO)
    if name is None:
        return TraitVectors.load(own)
    found = load_vectors(name)
    if file and found.sha256 != TraitVectors.load(own).sha256:
        raise ConfigError(f"--vectors differs from the file that the policies name, {own}")
    return found
