"""Makes a calibration from benign prompts for one model and vector file, and tests its thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from guardrail.calibrate import projections as collect
from guardrail.calibrate import proposals
from guardrail.calibrate.achieved import Kept, Trigger, achieved, plan_triggers, trait_triggers
from guardrail.calibrate.benign_replies import followed_layers, reply_statistics
from guardrail.calibrate.policy_file import PolicyFile
from guardrail.calibrate.projections import Advance, Column, Projections, Spoken, token_projections
from guardrail.calibrate.sample import Sample
from guardrail.calibrate.sizes import Rates, Size, check_sizes
from guardrail.calibration.benign import Benign
from guardrail.calibration.certificates import Certificate
from guardrail.calibration.evidence import Achieved, Evidence
from guardrail.calibration.slices import Slice
from guardrail.calibration.values import Calibration
from guardrail.demo.shipped import other_sizes
from guardrail.engines.transformers.configuration import configuration
from guardrail.errors import CalibrationError, VectorError
from guardrail.files.yaml import KeyPath
from guardrail.policy.model import Threshold
from guardrail.policy.plan import Plan
from guardrail.policy.reach import doubt, doubts
from guardrail.types import Fingerprint, Probe
from guardrail.vectors.values import TraitVectors

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject

CONVERSATIONS = 256
NEW_TOKENS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The targets. `set_fpr` is a rate for all enforced policies together. `fpr` None: as `set_fpr`, or 0.01.

    `conversations`: how many prompts the unguarded model answers, with at most `max_new_tokens` each, for the
    statistics that `cap` and policies about replies need; 0 skips them. `worst_slice`: rates hold for every
    slice of the sample as well.
    """

    population: str
    fpr: float | None = None
    set_fpr: float | None = None
    conversations: int = CONVERSATIONS
    max_new_tokens: int = NEW_TOKENS
    allow_model_mismatch: bool = False
    worst_slice: bool = False

    @property
    def rate(self) -> float:
        """The rate of each trait and policy."""
        return Rates(fpr=self.fpr, set_fpr=self.set_fpr).rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The calibration with its evidence; for a policy file also the new plan and the new thresholds."""

    calibration: Calibration
    plan: Plan | None = None
    thresholds: Mapping[KeyPath, Threshold]
    """The new values for the policy file, by the path of the threshold. The plan already uses them."""
    triggers: tuple[Trigger, ...] = ()
    """What the achieved rates are about, in their order."""
    warnings: tuple[str, ...] = ()
    """Why policies, or traits if there are none, may never reach their thresholds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was read from the model: a calibration, and the projections for computing rates.

    `kept` prompts are behind the thresholds; `tested` ones show how often these fire. Both by slice; the
    benign sample under None.
    """

    calibration: Calibration
    kept: Kept
    tested: Kept


def calibrate(
    subject: Subject,
    vectors: TraitVectors,
    sample: Sample,
    options: Options,
    policies: PolicyFile | None = None,
    advance: Advance = lambda count: None,
) -> Calibrated:
    """Run `measure` and then `conclude`. Raises the errors of both."""
    measured = measure(subject, vectors, sample, options, policies, advance)
    return conclude(measured, vectors, options, policies)


def measure(
    subject: Subject,
    vectors: TraitVectors,
    sample: Sample,
    options: Options,
    policies: PolicyFile | None = None,
    advance: Advance = lambda count: None,
) -> Measured:
    """Read the model. `advance` counts prompts and conversations.

    Before reading, raises CalibrationError or PolicyError if the sample is too small for a rate, and
    VectorError for vectors of another model.
    """
    check_vectors(vectors, subject.fingerprint, options.allow_model_mismatch)
    check_rates(sample, options, policies)
    probes = collect.probes(vectors, policies.probes(subject.fingerprint) if policies else None)
    kept, tested = _read(subject, sample, probes, options.worst_slice, advance)
    spoken = _spoken(subject, sample, options, advance)
    rules = policies and policies.policies
    followed = collect.followed(vectors, followed_layers(rules))
    tokens = token_projections(subject, spoken, collect.steering(vectors), followed, sample.seed)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    calibration = Calibration(
        fingerprint=subject.fingerprint,
        vectors_sha256=vectors.sha256,
        population=options.population,
        created=created,
        probes=_table(kept[None]),
        steering=_table(tokens.steering) if spoken else {},
        replies=reply_statistics(tokens.replies, followed.columns, rules),
        evidence=_evidence(sample, len(spoken), tokens.tokens),
        slices={name: _slice(name, one, kept[name]) for name, one in sample.slices.items()},
        worst_slice=options.worst_slice,
        certificates=(
            Certificate(
                configuration=configuration(subject.local), created=created, prompts=len(sample.calibration)
            ),
        ),
    )
    return Measured(calibration=calibration, kept=kept, tested=tested)


def conclude(
    measured: Measured, vectors: TraitVectors, options: Options, policies: PolicyFile | None = None
) -> Calibrated:
    """Compute thresholds and what they achieve. Raises PolicyError if the policy file does not fit the
    calibration, and CalibrationError if a set's rate cannot be divided among its policies."""
    calibration, kept = measured.calibration, measured.kept
    plan, thresholds = _thresholds(policies, vectors, calibration, kept, options) if policies else (None, {})
    triggers = trait_triggers(vectors, calibration, kept, options.rate)
    triggers += plan_triggers(plan, kept, options.set_fpr) if plan else ()
    found = {name: achieved(triggers, projections) for name, projections in measured.tested.items()}
    return Calibrated(
        calibration=_with_rates(calibration, found),
        plan=plan,
        thresholds=thresholds,
        triggers=tuple(triggers),
        warnings=tuple(_warnings(plan, triggers, vectors, calibration)),
    )


def _warnings(
    plan: Plan | None, triggers: Iterable[Trigger], vectors: TraitVectors, calibration: Calibration
) -> Iterable[str]:
    """One for each policy; without policies one for each trait, and what is the same for all of them once."""
    if plan is not None:
        return [text for rule in plan.rules for text in doubts(rule, calibration, vectors)]
    found = (doubt(one, calibration, vectors) for trigger in triggers for one in trigger.conditions)
    return dict.fromkeys(text for text in found if text)


def _with_rates(calibration: Calibration, found: Mapping[str | None, tuple[Achieved, ...]]) -> Calibration:
    slices = {name: replace(one, achieved=found[name]) for name, one in calibration.slices.items()}
    evidence = calibration.evidence and replace(calibration.evidence, achieved=found[None])
    return replace(calibration, evidence=evidence, slices=slices)


def check_vectors(vectors: TraitVectors, fingerprint: Fingerprint, allow_mismatch: bool) -> None:
    """Raises VectorError for vectors of another model, unless `allow_mismatch` and the sizes agree."""
    theirs = vectors.provenance.fingerprint
    if not theirs.fits(fingerprint):
        raise VectorError(f"the vectors were made for a model of {other_sizes(theirs, fingerprint)}")
    if (different := theirs.differences(fingerprint)) and not allow_mismatch:
        raise VectorError(
            f"the vectors were made for another model (different: {', '.join(different)}); "
            "a finetune of it must be allowed explicitly"
        )


def check_rates(sample: Sample, options: Options, policies: PolicyFile | None) -> None:
    """Raises before reading the model if the number of prompts or the policies rule out a rate."""
    samples = {None: sample, **(sample.slices if options.worst_slice else {})}
    rates = Rates(fpr=options.fpr, set_fpr=options.set_fpr)
    check_sizes({name: Size.of(one) for name, one in samples.items()}, rates, policies)


def _read(
    subject: Subject, sample: Sample, probes: Mapping[Column, Probe], worst_slice: bool, advance: Advance
) -> tuple[Kept, Kept]:
    """The projections behind thresholds, and those that test them: a slice that sets none tests whole."""
    kept: dict[str | None, Projections] = {}
    tested: dict[str | None, Projections] = {}
    for name, one in {None: sample, **sample.slices}.items():
        kept[name] = collect.prompt_projections(subject, one.calibration, probes, advance)
        whole = name is not None and not worst_slice
        held_out = collect.prompt_projections(subject, one.held_out, probes, advance)
        tested[name] = kept[name] if whole else held_out
    return kept, tested


def _slice(name: str, sample: Sample, kept: Projections) -> Slice:
    try:
        probes = _table(kept.readable())
    except CalibrationError as error:
        raise CalibrationError(f"slice `{name}`: {error}") from error
    return Slice(
        source=sample.source,
        source_sha256=sample.sha256,
        prompts=len(sample.prompts),
        duplicates=sample.duplicates,
        skipped=sample.skipped,
        probes=probes,
    )


def _spoken(subject: Subject, sample: Sample, options: Options, advance: Advance) -> list[Spoken]:
    if not options.conversations:
        return []
    room = subject.longest - options.max_new_tokens
    chosen = [p for p in sample.calibration if len(p.ids) <= room][: options.conversations]
    if not chosen:
        raise CalibrationError(f"no prompt leaves room for a reply of {options.max_new_tokens} tokens")
    return collect.speak(
        subject, chosen, new_tokens=options.max_new_tokens, seed=sample.seed, advance=advance
    )


def _table(projections: Projections) -> dict[str, dict[int, Benign]]:
    table: dict[str, dict[int, Benign]] = {}
    for trait, layer in projections.columns:
        values = projections.of(trait, layer)
        read = values[~np.isnan(values)]
        try:
            if len(values) and not len(read):
                raise CalibrationError("no benign prompt has tool results, and nothing else is read")
            table.setdefault(trait, {})[layer] = Benign.of(read)
        except CalibrationError as error:
            raise CalibrationError(f"{trait} at layer {layer}: {error}") from error
    return table


def _evidence(sample: Sample, conversations: int, tokens: int) -> Evidence:
    return Evidence(
        source_sha256=sample.sha256,
        prompts=len(sample.prompts),
        duplicates=sample.duplicates,
        skipped=sample.skipped,
        calibrated=len(sample.calibration),
        held_out=len(sample.held_out),
        seed=sample.seed,
        conversations=conversations,
        tokens=tokens,
    )


def _thresholds(
    file: PolicyFile, vectors: TraitVectors, calibration: Calibration, kept: Kept, options: Options
) -> tuple[Plan, dict[KeyPath, Threshold]]:
    policies = file.policies
    if options.set_fpr is None:
        plan = file.compile(policies, vectors, calibration)
        thresholds = proposals.at_rate(policies, plan, calibration, options.rate)
    else:
        rules = file.compile(proposals.without_rates(policies), vectors, calibration).rules
        binding = {name: one for name, one in kept.items() if name is None or options.worst_slice}
        thresholds = proposals.for_set(policies, rules, binding, options.set_fpr)
    return file.compile(proposals.replaced(policies, thresholds), vectors, calibration), thresholds
