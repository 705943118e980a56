"""The records of what decides: a guard that starts and stops, and policies or a model that change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

from guardrail.audit.trail import AuditTrail
from guardrail.engines import Engine
from guardrail.errors import AuditError, ConfigError, RestartNeeded
from guardrail.files.forks import freed
from guardrail.files.records import new_id, utc_now
from guardrail.plugins.audit import Change, ChangeKind
from guardrail.policy.loading import ActivePolicies
from guardrail.policy.reload import PolicyWatcher

log = logging.getLogger("guardrail")

PACKAGES = ("persona-guardrail", "torch", "transformers", "nnsight")
FIXED = ("audit", "plugins")
"""What a guard takes from its policy file once, when it starts: sinks are open, plugins are loaded."""
CHANGED = (
    "the model has changed since it was loaded (%s): `on_model_change` decides about every prompt, until it "
    "is as before, or policies with a calibration of this model are loaded (`guardrail calibrate`)"
)
COMPARED = ("policy_sha256", "vectors_sha256", "calibration_sha256", "fingerprint")


@contextmanager
def recorded(audit: AuditTrail, engine: Engine, policies: PolicyWatcher) -> Generator[History]:
    """Write that a guard starts and, at the end, that it has stopped; in between, every reload.

    A reload that would change what cannot change while the guard runs is refused. Raises ConfigError if the
    start cannot be recorded.
    """
    history = History(audit, engine, policies.active)
    try:
        history.write("started")
    except AuditError as error:
        raise ConfigError(str(error)) from error
    policies.entering = history.reloaded
    try:
        yield history
    finally:
        try:
            history.write("stopped")
        except AuditError as error:
            # a guard must close, whatever its log says
            log.warning("the end is not on record: %s", error)


class History:
    """Writes changes to the audit trail."""

    def __init__(self, audit: AuditTrail, engine: Engine, active: ActivePolicies) -> None:
        self._audit, self._engine, self._active = audit, engine, active
        self._last: Change | None = None
        self._model: str | None = None
        self._noticing = freed(threading.Lock())

    def write(self, event: ChangeKind, note: str = "") -> None:
        """Record what decides from now on. Raises AuditError."""
        if self._audit.sinks:
            change = self._change(event, note)
            self._audit.changed(change)
            self._last = change

    def reloaded(self, candidate: ActivePolicies) -> None:
        """Record policies before they come into force. Raises RestartNeeded and AuditError."""
        for key in FIXED:
            if getattr(candidate.policies, key) != getattr(self._active.policies, key):
                raise RestartNeeded(
                    f"`{key}` cannot change while the guard runs: start it again, or change it back"
                )
        before, self._active = self._active, candidate
        try:
            self.write("policies_changed")
        except AuditError:
            self._active = before
            raise

    def model(self, change: str | None) -> None:
        """Record what has changed in the model, or (None) that it is what it was. Raises AuditError."""
        if change == self._model:
            return
        with self._noticing:
            if change != self._model:
                self.write("model_changed", change or "is again what it was")
                self._model = change
                if change is not None:
                    log.warning(CHANGED, change)

    def _change(self, event: ChangeKind, note: str) -> Change:
        plan = self._active.plan
        change = Change(
            id=new_id(),
            time=utc_now(),
            event=event,
            policy_sha256=plan.policy_sha256,
            vectors_sha256=plan.vectors_sha256,
            calibration_sha256=plan.calibration_sha256,
            fingerprint=self._engine.fingerprint.weights,
            versions=_versions(),
            note=note,
        )
        return change if self._last is None else replace(change, changed=_differences(self._last, change))


def _differences(before: Change, after: Change) -> tuple[str, ...]:
    return tuple(name for name in COMPARED if getattr(before, name) != getattr(after, name))


@cache
def _versions() -> tuple[str, ...]:
    found = [f"python {python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            # a checkout that is not installed
            continue
    return tuple(found)
