"""Compiles a policy's conditions: the probe and layer to read, and the threshold in score units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from guardrail.calibration.benign import Benign
from guardrail.calibration.slices import Populations
from guardrail.calibration.values import Calibration
from guardrail.errors import CalibrationError
from guardrail.files.problems import suggest
from guardrail.plugins.protocols import ActionInfo
from guardrail.policy.model import Condition, FprThreshold, Monitor, Policy
from guardrail.policy.rules import CompiledCondition
from guardrail.policy.stages import Scale, drift_condition, reply_condition
from guardrail.policy.thresholds import finite, raw_threshold, threshold_number
from guardrail.types import Configuration, Fingerprint, Probe
from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileInputs:
    """Everything that a policy file is checked against."""

    fingerprint: Fingerprint
    vectors: TraitVectors
    calibration: Calibration | None
    actions: Mapping[str, ActionInfo]
    probes: Mapping[str, Probe] = field(default_factory=dict[str, Probe])
    scorers: frozenset[str] = frozenset()
    certified: Mapping[str, str] = field(default_factory=dict[str, str])
    """For `vectors` and `calibration` from a pack: the warning if the weights are not those of the pack."""
    running: Configuration | None = None
    """How the model is run; None if there is no model to ask."""


class Report(Protocol):
    """Records a problem and the path of keys that leads to it."""

    def __call__(self, message: str, *path: str | int) -> None: ...


class Conditions:
    """Compiles conditions one by one and collects the probes to read, one per trait and layer."""

    def __init__(self, inputs: CompileInputs, problem: Report) -> None:
        self.inputs, self._problem = inputs, problem
        self.probes: dict[tuple[str, int], Probe] = {}
        """The probes for prompts, in the order of `CompiledCondition.reading`."""
        self.reply_probes: list[Probe] = []
        """The probes for replies, one per condition."""

    def compiled(self, policy: Policy, path: tuple[str | int, ...]) -> list[CompiledCondition] | None:
        """All conditions of the policy at `path`, or None if one has a problem. Reports the problem."""
        found = [self._condition(policy, c, _place(policy, path, j)) for j, c in enumerate(policy.conditions)]
        compiled = [c for c in found if c is not None]
        return compiled if len(compiled) == len(found) else None

    def check_layers(self, policy: Policy, path: tuple[str | int, ...]) -> None:
        """Reports layers that the model does not have. Needs no vectors."""
        for j, condition in enumerate(policy.conditions):
            self._check_bound(condition, _place(policy, path, j))

    def _check_bound(self, condition: Condition, path: tuple[str | int, ...]) -> None:
        layers = self.inputs.fingerprint.layers
        if condition.layer != "auto" and condition.layer > layers:
            bad = f"layer {condition.layer} cannot be read; layers are 1 to {layers}"
            self._problem(bad, *path, "layer")

    def linear(
        self, condition: Condition, layer: int, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        """The condition on a prompt's score at `layer`, or None after reporting a problem."""
        known = self._known(condition.trait, layer)
        benign = known and known.benign
        try:
            edge = raw_threshold(condition, known)
            raw = edge.projection
            threshold = finite(benign.standardise(raw) if benign else raw)
            reading = self._reading(condition.trait, layer, benign)
        except CalibrationError as error:
            self._problem(str(error), *path, "threshold")
            return None
        fpr = condition.threshold.fpr if isinstance(condition.threshold, FprThreshold) else None
        found = CompiledCondition(
            trait=condition.trait,
            layer=layer,
            reading=reading,
            threshold=threshold,
            raw=raw,
            fires=condition.fires,
            fpr=fpr,
            n=benign.n if benign else None,
            slice=edge.slice,
        )
        if found.holds(0.0) and self.probe(condition.trait, layer).only_results:
            self._problem(
                "would fire on every prompt without tool results, which scores 0", *path, "threshold"
            )
        return found

    def _condition(
        self, policy: Policy, condition: Condition, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        trait = condition.trait
        follows = policy.stage == "response" or policy.conversation is not None
        if trait in self.inputs.scorers and follows:
            self._problem("a scorer reads whole prompts and cannot follow replies", *path, "trait")
            return None
        if trait in self.inputs.scorers:
            return self._scorer_condition(condition, path)
        if not self.known(trait):
            known = [*self.inputs.vectors, *self.inputs.probes, *self.inputs.scorers]
            self._problem(f"unknown trait `{trait}`{suggest(trait, known)}", *path, "trait")
            self._check_bound(condition, path)
            return None
        layer = self.layer(condition)
        if layer is None:
            self._no_layer(condition, path)
            return None
        if follows:
            return self._following(policy, condition, layer, path)
        return self.linear(condition, layer, path)

    def _following(
        self, policy: Policy, condition: Condition, layer: int, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        """The condition of a policy about replies or conversations. Adds its probe to `reply_probes`."""
        if not self.check_plain(condition, layer, "cannot follow replies", (*path, "trait")):
            return None
        calibration, reading = self.inputs.calibration, len(self.reply_probes)
        replies = calibration.replies.get(condition.trait, {}).get(layer) if calibration else None
        key = "conversation" if policy.conversation else "threshold"
        try:
            if policy.conversation:
                found = drift_condition(condition, layer, policy.conversation, replies, reading)
            else:
                found = reply_condition(condition, layer, policy.monitor or Monitor(), replies, reading)
            compiled, scale = found
            finite(compiled.threshold)
            probe = scale.folded(self.probe(condition.trait, layer))
        except CalibrationError as error:
            self._problem(str(error), *path, key)
            return None
        self.reply_probes.append(probe)
        return compiled

    def check_plain(self, condition: Condition, layer: int, cannot: str, path: tuple[str | int, ...]) -> bool:
        """Whether a probe reads one token as it is. Reports a problem for any other."""
        probe = self.probe(condition.trait, layer)
        if not probe.plain:
            self._problem(f"its probe reads {probe.read_outs} of prompts and {cannot}", *path)
        return probe.plain

    def _scorer_condition(
        self, condition: Condition, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        value = threshold_number(condition)
        if value is None:
            self._problem("must be a number, because a scorer has no calibration", *path, "threshold")
            return None
        return CompiledCondition(
            trait=condition.trait, layer=None, reading=None, threshold=value, raw=value, fires=condition.fires
        )

    def known(self, trait: str) -> bool:
        """Whether something reads this trait: a vector, or a plugin's probe or scorer."""
        return any(trait in those for those in (self.inputs.vectors, self.inputs.probes, self.inputs.scorers))

    def layer(self, condition: Condition) -> int | None:
        """The layer that a condition on a known trait reads; None if there is none, or it cannot be read."""
        if (probe := self.inputs.probes.get(condition.trait)) is not None:
            return probe.layer
        vector = self.inputs.vectors[condition.trait]
        layer = vector.layer if condition.layer == "auto" else condition.layer
        return layer if layer is not None and vector.usable(layer) else None

    def _no_layer(self, condition: Condition, path: tuple[str | int, ...]) -> None:
        vector = self.inputs.vectors[condition.trait]
        layer = vector.layer if condition.layer == "auto" else condition.layer
        said = f"layer {layer} cannot be read; layers are 1 to {vector.layers}"
        if layer is None:
            said = "`auto`: no evaluation has chosen a layer for this trait; give a layer"
        elif vector.unusable:
            said += f", except {list(vector.unusable)}"
        self._problem(said, *path, "layer")

    def _known(self, trait: str, layer: int) -> Populations | None:
        calibration = self.inputs.calibration
        return calibration and calibration.populations(trait, layer)

    def _reading(self, trait: str, layer: int, benign: Benign | None) -> int:
        if (trait, layer) not in self.probes:
            self.probes[trait, layer] = self._folded(trait, layer, benign)
        return list(self.probes).index((trait, layer))

    def probe(self, trait: str, layer: int) -> Probe:
        """What detects a trait at a layer: a plugin's probe, or the vector's."""
        own = self.inputs.probes.get(trait)
        return self.inputs.vectors[trait].probe_at(layer) if own is None else replace(own, trait=trait)

    def _folded(self, trait: str, layer: int, benign: Benign | None) -> Probe:
        scale = Scale(benign.mean, benign.sd) if benign else Scale()
        return scale.folded(self.probe(trait, layer))


def _place(policy: Policy, path: tuple[str | int, ...], j: int) -> tuple[str | int, ...]:
    if policy.trait is not None:
        return path
    return (*path, "all_of" if policy.all_of else "any_of", j)
