"""Compiling: PolicySet + vectors + calibration + fingerprint -> Plan, with every problem found on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import BaseModel, ValidationError

from guardrail.calibration import Benign, Calibration
from guardrail.errors import CalibrationError, Problem
from guardrail.plan import CompiledCondition, Plan, Rule
from guardrail.policy import Condition, FprThreshold, Monitor, Policy, PolicySet, RawThreshold
from guardrail.problems import suggest, validation_problems
from guardrail.stages import Scale, action_problems, drift_condition, reply_condition, stage_problems
from guardrail.steering import SpecError, build_steering, recheck_layer
from guardrail.thresholds import raw_threshold, threshold_number
from guardrail.types import ALLOW, STOP, Fingerprint, Probe, Steering, SteerSpec, Verdict
from guardrail.vectors import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionInfo:
    """What compiling needs to know of an action: its place, and how its configuration becomes a verdict.

    `config` is the model that `validate` validates, for suggestions and for the schema of policy files.
    """

    strength: int
    validate: Callable[[Mapping[str, object]], BaseModel]
    compile: Callable[[BaseModel], Verdict]
    config: type[BaseModel] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileInputs:
    """Everything a policy file is checked against."""

    fingerprint: Fingerprint
    vectors: TraitVectors
    calibration: Calibration | None
    actions: Mapping[str, ActionInfo]
    probes: Mapping[str, Probe] = field(default_factory=dict[str, Probe])
    scorers: frozenset[str] = frozenset()


class Compiler:
    """Turns a PolicySet into a Plan, collecting every problem instead of stopping at the first."""

    def __init__(self, policies: PolicySet, inputs: CompileInputs) -> None:
        self.policies = policies
        self.inputs = inputs
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.probes: dict[tuple[str, int], Probe] = {}
        self.reply_probes: list[Probe] = []

    def compile(self) -> Plan:
        """The plan; meaningful only when `problems` is empty afterwards."""
        self._check_model()
        self._check_set()
        rules = [rule for i, policy in enumerate(self.policies.policies) if (rule := self._rule(i, policy))]
        self._warn_about(rules)
        canonical = self.policies.model_dump_json()
        return Plan(
            probes=tuple(self.probes.values()),
            rules=tuple(rule for rule in rules if rule.monitor is None),
            response=tuple(rule for rule in rules if rule.monitor is not None),
            reply_probes=tuple(self.reply_probes),
            strengths={name: info.strength for name, info in self.inputs.actions.items()} | {"allow": 0},
            policy_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
            vectors_sha256=self.inputs.vectors.sha256,
            calibration_sha256=self.inputs.calibration.sha256 if self.inputs.calibration else "",
            warnings=tuple(self.warnings),
        )

    def check_without_vectors(self) -> None:
        """What can be said before there are vectors: ids, modes, actions and their configurations."""
        self._check_set()
        for i, policy in enumerate(self.policies.policies):
            self._config(policy, self.inputs.actions.get(policy.action.name), ("policies", i, "action"))

    def _problem(self, message: str, *path: str | int) -> None:
        self.problems.append(Problem(message, path))

    def _check_model(self) -> None:
        vectors, calibration = self.inputs.vectors, self.inputs.calibration
        self._check_fingerprint("vectors", vectors.provenance.fingerprint)
        if calibration is None:
            return
        self._check_fingerprint("calibration", calibration.fingerprint)
        if calibration.vectors_sha256 != vectors.sha256:
            self._problem("was made with another vector file; calibrate again", "calibration")

    def _check_fingerprint(self, key: str, theirs: Fingerprint) -> None:
        ours = self.inputs.fingerprint
        if not theirs.fits(ours):
            shapes = (
                f"{theirs.layers} layers x {theirs.d_model}, this model has {ours.layers} x {ours.d_model}"
            )
            self._problem(f"made for a model of {shapes}", key)
        elif different := theirs.differences(ours):
            text = f"{key} made for another model (different: {', '.join(different)})"
            if self.policies.allow_model_mismatch:
                self.warnings.append(f"allow_model_mismatch: {text}")
            else:
                self._problem(f"{text}; `allow_model_mismatch: true` accepts a finetune of it", key)

    def _check_set(self) -> None:
        enforced = [p for p in self.policies.policies if self.policies.resolved(p).mode == "enforce"]
        if not enforced and not self.policies.allow_empty:
            self._problem("no policy is enforced; say `allow_empty: true` if that is meant", "policies")
        seen: set[str] = set()
        for i, policy in enumerate(self.policies.policies):
            if policy.id in seen:
                self._problem(f"duplicate id `{policy.id}`", "policies", i, "id")
            seen.add(policy.id)

    def _warn_about(self, rules: Sequence[Rule]) -> None:
        for rule in rules:
            if rule.fails_open:
                self.warnings.append(f"{rule.id}: fails open: {', '.join(open_keys(rule))}")
            if rule.mode == "enforce" and rule.settings.on_truncate == "score_tail":
                self.warnings.append(f"{rule.id}: of a prompt that is too long only the end is evaluated")
            if rule.mode == "enforce" and (self.inputs.calibration is None or self._unknown(rule)):
                self.warnings.append(
                    f"{rule.id}: enforced without a calibration; its false-positive rate is unknown"
                )

    def _unknown(self, rule: Rule) -> bool:
        """Whether a policy about replies or conversations stands on numbers that no calibration backs."""
        calibration = self.inputs.calibration
        table = calibration.replies if calibration else {}
        follows = rule.monitor is not None or any(c.drift for c in rule.conditions)
        return follows and any(c.layer not in table.get(c.trait, {}) for c in rule.conditions)

    def _rule(self, i: int, policy: Policy) -> Rule | None:
        path = ("policies", i)
        for key, message in stage_problems(policy):
            self._problem(message, *path, *key)
        conditions = [
            self._condition(policy, c, self._place(policy, path, j)) for j, c in enumerate(policy.conditions)
        ]
        found = [c for c in conditions if c is not None]
        info = self.inputs.actions.get(policy.action.name)
        config = self._config(policy, info, (*path, "action"))
        if info is None or config is None or len(found) < len(conditions):
            return None
        for key, message in action_problems(policy, config):
            self._problem(message, *path, "action", policy.action.name, *key)
        verdict = self._verdict(info, config, (*path, "action", policy.action.name))
        if verdict is None:
            return None
        spec = verdict if isinstance(verdict, SteerSpec) else None
        steering = self._steering(policy, found, spec, (*path, "action"))
        settings = self.policies.resolved(policy)
        return Rule(
            id=policy.id,
            conditions=tuple(found),
            require_all=not policy.any_of,
            action=policy.action.name,
            config=config,
            steering=steering,
            recheck=self._recheck(policy, steering, spec, (*path, "action", policy.action.name)),
            otherwise=spec.otherwise if spec else getattr(config, "otherwise", "block"),
            mode=settings.mode,
            when=policy.when,
            share=policy.enforce.share,
            message=policy.message,
            settings=settings,
            monitor=(policy.monitor or Monitor()) if policy.stage == "response" else None,
        )

    def _verdict(self, info: ActionInfo, config: BaseModel, path: tuple[str | int, ...]) -> Verdict | None:
        try:
            verdict: object = info.compile(config)
        except Exception as error:
            verdict = error
        if verdict == STOP or isinstance(verdict, SteerSpec):
            return verdict  # pyright: ignore[reportReturnType]
        self._problem(f"the action does not compile: {verdict!r}", *path)
        return None

    @staticmethod
    def _place(policy: Policy, path: tuple[str | int, ...], j: int) -> tuple[str | int, ...]:
        if policy.trait is not None:
            return path
        return (*path, "all_of" if policy.all_of else "any_of", j)

    def _config(
        self, policy: Policy, info: ActionInfo | None, path: tuple[str | int, ...]
    ) -> BaseModel | None:
        name = policy.action.name
        if info is None:
            self._problem(f"unknown action `{name}`{suggest(name, self.inputs.actions)}", *path)
            return None
        try:
            return info.validate(policy.action.config)
        except ValueError as error:
            self.problems += config_problems(error, policy.action.config, (*path, name), info)
            return None

    def _condition(
        self, policy: Policy, condition: Condition, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        trait, probe = condition.trait, self.inputs.probes.get(condition.trait)
        follows = policy.stage == "response" or policy.conversation is not None
        if trait in self.inputs.scorers and follows:
            self._problem("a scorer reads whole prompts; it cannot follow replies", *path, "trait")
            return None
        if trait in self.inputs.scorers:
            return self._scorer_condition(condition, path)
        if probe is None and trait not in self.inputs.vectors:
            known = [*self.inputs.vectors, *self.inputs.probes, *self.inputs.scorers]
            self._problem(f"unknown trait `{trait}`{suggest(trait, known)}", *path, "trait")
            return None
        layer = probe.layer if probe else self._layer(condition, path)
        if layer is None:
            return None
        if follows:
            return self._following(policy, condition, layer, path)
        return self._linear_condition(condition, layer, path)

    def _following(
        self, policy: Policy, condition: Condition, layer: int, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        """The condition of a policy about replies or conversations, its probe among `reply_probes`."""
        calibration, reading = self.inputs.calibration, len(self.reply_probes)
        replies = calibration.replies.get(condition.trait, {}).get(layer) if calibration else None
        key = "conversation" if policy.conversation else "threshold"
        try:
            if policy.conversation:
                found = drift_condition(condition, layer, policy.conversation, replies, reading)
            else:
                found = reply_condition(condition, layer, policy.monitor or Monitor(), replies, reading)
        except CalibrationError as error:
            self._problem(str(error), *path, key)
            return None
        compiled, scale = found
        self.reply_probes.append(scale.folded(condition.trait, layer, self._probe(condition.trait, layer)))
        return compiled

    def _scorer_condition(
        self, condition: Condition, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        value = threshold_number(condition)
        if value is None:
            self._problem("a scorer's threshold is a number: it has no calibration", *path, "threshold")
            return None
        return CompiledCondition(
            trait=condition.trait, layer=None, reading=None, threshold=value, raw=value, fires=condition.fires
        )

    def _layer(self, condition: Condition, path: tuple[str | int, ...]) -> int | None:
        vector = self.inputs.vectors[condition.trait]
        layer = vector.layer if condition.layer == "auto" else condition.layer
        if layer is None:
            self._problem("`auto`: no evaluation chose a layer for this trait; name one", *path, "layer")
        elif not vector.usable(layer):
            bad = f"layer {layer} cannot be read; layers are 1 to {vector.layers}"
            self._problem(
                bad + (f", without {list(vector.unusable)}" if vector.unusable else ""), *path, "layer"
            )
            return None
        return layer

    def _linear_condition(
        self, condition: Condition, layer: int, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        benign = self._benign(condition.trait, layer)
        try:
            raw = raw_threshold(condition, benign)
        except CalibrationError as error:
            self._problem(str(error), *path, "threshold")
            return None
        fpr = condition.threshold.fpr if isinstance(condition.threshold, FprThreshold) else None
        return CompiledCondition(
            trait=condition.trait,
            layer=layer,
            reading=self._reading(condition.trait, layer, benign),
            threshold=benign.standardise(raw) if benign else raw,
            raw=raw,
            fires=condition.fires,
            fpr=fpr,
            n=benign.n if benign else None,
        )

    def _benign(self, trait: str, layer: int) -> Benign | None:
        if self.inputs.calibration is None:
            return None
        return self.inputs.calibration.probes.get(trait, {}).get(layer)

    def _reading(self, trait: str, layer: int, benign: Benign | None) -> int:
        if (trait, layer) not in self.probes:
            self.probes[trait, layer] = self._folded(trait, layer, benign)
        return list(self.probes).index((trait, layer))

    def _probe(self, trait: str, layer: int) -> Probe:
        own = self.inputs.probes.get(trait)
        vector = self.inputs.vectors.get(trait)
        weights = own.weights if own else vector.probe[layer] if vector else np.zeros(0, np.float32)
        offset = own.offset if own else float(vector.offset[layer]) if vector else 0.0
        return Probe(trait=trait, layer=layer, weights=weights.astype(np.float32), offset=offset)

    def _folded(self, trait: str, layer: int, benign: Benign | None) -> Probe:
        scale = Scale(benign.mean, benign.sd) if benign else Scale()
        return scale.folded(trait, layer, self._probe(trait, layer))

    def _steering(
        self,
        policy: Policy,
        found: Sequence[CompiledCondition],
        spec: SteerSpec | None,
        path: tuple[str | int, ...],
    ) -> Steering | None:
        if spec is None:
            return None
        condition = next((c for c in found if c.trait in self.inputs.vectors), None)
        if condition is None or condition.layer is None:
            self._problem("nothing to steer: no condition is about a trait with a vector", *path)
            return None
        try:
            return build_steering(
                spec,
                policy.id,
                self.inputs.vectors[condition.trait],
                condition.layer,
                self.inputs.calibration,
                floor=condition.fires == "below",
            )
        except SpecError as error:
            self._problem(str(error), *path, policy.action.name)
            return None

    def _recheck(
        self, policy: Policy, steering: Steering | None, spec: SteerSpec | None, path: tuple[str | int, ...]
    ) -> CompiledCondition | None:
        if spec is None or not spec.recheck or steering is None:
            return None
        if policy.stage == "response" or policy.conversation is not None:
            return None  # a problem already
        condition = next(c for c in policy.conditions if c.trait == steering.trait)
        layer = recheck_layer(steering, self.inputs.vectors[condition.trait])
        if isinstance(condition.threshold, RawThreshold):
            self._problem(
                "recheck reads another layer, where a raw threshold means nothing", *path, "recheck"
            )
            return None
        return self._linear_condition(condition, layer, path)


def open_keys(rule: Rule) -> list[str]:
    """The keys that let a prompt pass when something goes wrong."""
    settings = rule.settings
    keys = {
        "on_error": settings.on_error,
        "on_timeout": rule.on_timeout,
        "unsupported_input": settings.unsupported_input,
        "otherwise": rule.otherwise,
    }
    return [f"`{name}: allow`" for name, value in keys.items() if value == ALLOW]


def config_problems(
    error: ValueError, config: Mapping[str, object], path: tuple[str | int, ...], info: ActionInfo
) -> list[Problem]:
    """The problems in an action's configuration, one for each key that is wrong."""
    if isinstance(error, ValidationError):
        return validation_problems(error, config, info.config, path)
    return [Problem(str(error), path)]
