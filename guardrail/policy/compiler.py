"""Compiles a policy set into a plan for one model, and reports every problem it finds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from guardrail.calibration.certificates import Certificate
from guardrail.demo.shipped import other_sizes
from guardrail.errors import Problem
from guardrail.files.problems import suggest, validation_problems
from guardrail.plugins.protocols import ActionInfo
from guardrail.policy.certified import stale_at_load, uncertified
from guardrail.policy.conditions import CompileInputs, Conditions
from guardrail.policy.model import Monitor, Policy, PolicySet, RawThreshold
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.policy.stages import action_problems, stage_problems
from guardrail.policy.steering import SpecError, build_steering, recheck_layer
from guardrail.policy.warnings import about_vectors, warnings
from guardrail.types import STOP, Fingerprint, Steering, SteerSpec, Verdict

REMEDIES = {
    "vectors": "`allow_model_mismatch: true` accepts a finetune of it; then run `guardrail calibrate`",
    "calibration": "run `guardrail calibrate` on this one (`allow_model_mismatch: true` accepts a finetune)",
}
"""What to do about a file that was made for another model."""
WATCHES = ("allow", "log", "monitor", "observe", "shadow", "warn")
"""What other guardrails call the action that changes nothing. Here that is a mode, with any action."""


class Compiler:
    """Turns a PolicySet into a Plan, collecting every problem instead of stopping at the first."""

    def __init__(self, policies: PolicySet, inputs: CompileInputs) -> None:
        self.policies = policies
        self.inputs = inputs
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.conditions = Conditions(inputs, self._problem)

    def compile(self) -> Plan:
        """The plan. Valid only if `problems` is empty afterwards."""
        self._check_model()
        self._check_set()
        rules = [rule for i, policy in enumerate(self.policies.policies) if (rule := self._rule(i, policy))]
        for rule in rules:
            self.warnings += warnings(rule, self.inputs.calibration)
            self.warnings += about_vectors(rule, self.inputs.vectors, self.inputs.calibration)
        return Plan(
            probes=tuple(self.conditions.probes.values()),
            rules=tuple(rule for rule in rules if rule.monitor is None),
            reply_rules=tuple(rule for rule in rules if rule.monitor is not None),
            reply_probes=tuple(self.conditions.reply_probes),
            strengths={name: info.strength for name, info in self.inputs.actions.items()} | {"allow": 0},
            policy_sha256=self._sha256(),
            vectors_sha256=self.inputs.vectors.sha256,
            calibration_sha256=self.inputs.calibration.sha256 if self.inputs.calibration else "",
            warnings=tuple(self.warnings),
            certificate=self._certificate,
        )

    def _sha256(self) -> str:
        """Of what the file says once the environment is filled in; empty if something is wrong with it."""
        if self.problems:
            return ""
        try:
            return hashlib.sha256(self.policies.model_dump_json().encode()).hexdigest()
        except ValueError as error:
            # pydantic's: an action's settings hold an object, or text that is not Unicode
            self._problem(f"cannot be written as JSON: {error}", "policies")
            return ""

    def check_without_vectors(self) -> None:
        """Check what needs no vectors: ids, modes, layers, stages, actions and their configurations."""
        self._check_set()
        for i, policy in enumerate(self.policies.policies):
            self.conditions.check_layers(policy, ("policies", i))
            self._action(policy, ("policies", i))

    def _problem(self, message: str, *path: str | int) -> None:
        self.problems.append(Problem(message, path))

    def _check_model(self) -> None:
        vectors, calibration = self.inputs.vectors, self.inputs.calibration
        self._check_fingerprint("vectors", vectors.provenance.fingerprint)
        self._check_certificates()
        if calibration is None:
            return
        self._check_fingerprint("calibration", calibration.fingerprint)
        if calibration.vectors_sha256 != vectors.sha256:
            self._problem("was made with another vector file; calibrate again", "calibration")

    def _check_certificates(self) -> None:
        calibration = self.inputs.calibration
        reason = uncertified(calibration, self.inputs.running)
        if reason and self.policies.require_certified:
            self._problem(reason, "calibration" if self.policies.calibration else "require_certified")
        elif reason and calibration and calibration.certificates:
            self.warnings.append(reason)
        elif warning := stale_at_load(self._certificate):
            self.warnings.append(warning)

    @property
    def _certificate(self) -> Certificate | None:
        calibration, running = self.inputs.calibration, self.inputs.running
        return calibration.certificate(running) if calibration and running else None

    def _check_fingerprint(self, key: str, theirs: Fingerprint) -> None:
        ours = self.inputs.fingerprint
        if not theirs.fits(ours):
            self._problem(f"made for a model of {other_sizes(theirs, ours)}", key)
        elif (different := theirs.differences(ours)) == ("weights",) and key in self.inputs.certified:
            if (warning := self.inputs.certified[key]) not in self.warnings:
                self.warnings.append(warning)
        elif different:
            text = f"{key} made for another model (different: {', '.join(different)})"
            if self.policies.allow_model_mismatch:
                self.warnings.append(f"allow_model_mismatch: {text}")
            else:
                self._problem(f"{text}; {REMEDIES[key]}", key)

    def _check_set(self) -> None:
        enforced = [p for p in self.policies.policies if self.policies.resolved(p).mode == "enforce"]
        if not enforced and not self.policies.allow_empty:
            self._problem("no policy is enforced; set `allow_empty: true` if this is intended", "policies")
        seen: set[str] = set()
        for i, policy in enumerate(self.policies.policies):
            if policy.id in seen:
                self._problem(f"duplicate id `{policy.id}`", "policies", i, "id")
            seen.add(policy.id)

    def _rule(self, i: int, policy: Policy) -> Rule | None:
        path = ("policies", i)
        found = self.conditions.compiled(policy, path)
        config, verdict = self._action(policy, path)
        spec = verdict if isinstance(verdict, SteerSpec) else None
        steering = self._steering(policy, spec, (*path, "action"))
        if verdict is None or found is None:
            return None
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

    def _action(self, policy: Policy, path: tuple[str | int, ...]) -> tuple[BaseModel | None, Verdict | None]:
        """The action's configuration and what it asks for; None after a problem. Checks the stage as well."""
        for key, message in stage_problems(policy):
            self._problem(message, *path, *key)
        info, place = self.inputs.actions.get(policy.action.name), (*path, "action", policy.action.name)
        config = self._config(policy, info, (*path, "action"))
        if info is None or config is None:
            return None, None
        for key, message in action_problems(policy, config):
            self._problem(message, *place, *key)
        return config, self._verdict(info, config, place)

    def _verdict(self, info: ActionInfo, config: BaseModel, path: tuple[str | int, ...]) -> Verdict | None:
        try:
            verdict: object = info.compile(config)
        except Exception as error:
            verdict = error
        if verdict == STOP or isinstance(verdict, SteerSpec):
            return verdict  # pyright: ignore[reportReturnType]
        self._problem(f"the action does not compile: {verdict!r}", *path)
        return None

    def _config(
        self, policy: Policy, info: ActionInfo | None, path: tuple[str | int, ...]
    ) -> BaseModel | None:
        name = policy.action.name
        if info is None:
            only = "; `mode: shadow` with any action scores and logs, and changes nothing"
            how = only if name in WATCHES else suggest(name, self.inputs.actions)
            self._problem(f"unknown action `{name}`{how}", *path)
            return None
        try:
            return info.validate(policy.action.config)
        except ValueError as error:
            self.problems += config_problems(error, policy.action.config, (*path, name), info)
            return None

    def _steering(
        self, policy: Policy, spec: SteerSpec | None, path: tuple[str | int, ...]
    ) -> Steering | None:
        """What to steer. Looks at the conditions' traits and layers only: their thresholds may be wrong."""
        if spec is None:
            return None
        condition = next((c for c in policy.conditions if c.trait in self.inputs.vectors), None)
        if condition is None:
            if all(self.conditions.known(one.trait) for one in policy.conditions):
                self._problem("nothing to steer: no condition uses a trait that has a vector", *path)
            return None
        if (layer := self.conditions.layer(condition)) is None:
            return None  # already reported as a problem
        try:
            return build_steering(
                spec,
                policy.id,
                self.inputs.vectors[condition.trait],
                layer,
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
            return None  # already reported as a problem
        condition = next(c for c in policy.conditions if c.trait == steering.trait)
        layer = recheck_layer(steering, self.inputs.vectors[condition.trait])
        if isinstance(condition.threshold, RawThreshold):
            self._problem("recheck reads another layer, so it cannot use a raw threshold", *path, "recheck")
            return None
        # steering changes the last token's state alone
        if not self.conditions.check_plain(condition, layer, "cannot be rechecked", (*path, "recheck")):
            return None
        return self.conditions.linear(condition, layer, path)


def config_problems(
    error: ValueError, config: Mapping[str, object], path: tuple[str | int, ...], info: ActionInfo
) -> list[Problem]:
    """The problems in an action's configuration, one per wrong key."""
    if isinstance(error, ValidationError):
        return validation_problems(error, config, info.config, path)
    return [Problem(str(error), path)]
