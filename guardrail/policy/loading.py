"""Loads a policy file with its vectors and calibration, checks them together and compiles the plan.

`load` does this once; `PolicyWatcher` keeps the last good result while the file changes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from guardrail.calibration.values import Calibration
from guardrail.errors import ConfigError, PluginError, PolicyError, Problem
from guardrail.files.problems import suggest
from guardrail.files.yaml import Document, read_document
from guardrail.plugins import packs
from guardrail.plugins.manager import Plugins
from guardrail.plugins.pack import AUTO, CALIBRATION, VECTORS, Pack
from guardrail.policy.compiler import Compiler
from guardrail.policy.conditions import CompileInputs
from guardrail.policy.file import Draft, draft
from guardrail.policy.model import PolicySet
from guardrail.policy.plan import Plan
from guardrail.types import Configuration, Fingerprint, Glimpse
from guardrail.vectors.provenance import Provenance
from guardrail.vectors.values import TraitVectors

BUILT_IN = "demo"
UNKNOWN = Fingerprint(
    architecture="", layers=1 << 30, d_model=0, vocab_size=0, weights="", tokenizer="", chat_template=""
)
"""A model of which nothing is known, not even how many layers are too many."""
Source: TypeAlias = str | Path | Mapping[str, object] | PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivePolicies:
    """A policy set that has passed every check. `sha256` is that of the policies, as in every decision."""

    policies: PolicySet
    plan: Plan
    vectors: TraitVectors
    calibration: Calibration | None
    plugins: Plugins
    path: Path | None = None
    pack: Pack | None = None
    """The pack that the vectors are from."""

    @property
    def sha256(self) -> str:
        """Identifies the content of the policies; layout and comments of the file do not matter."""
        return self.plan.policy_sha256


def load(
    source: Source,
    fingerprint: Fingerprint | None,
    plugins: Plugins,
    running: Configuration | None = None,
) -> ActivePolicies:
    """Read, resolve and compile policies for one model. Raises PolicyError with every problem found.

    A mapping stands for the content of a policy file; its relative paths start at the working directory, and
    nothing is filled in from the environment. Without a fingerprint, the model that the vectors were made for
    stands in for the real one. `running`: how the model is run; the calibration has to be certified for it.
    """
    document, found = _read(located(source, None if fingerprint is None else lambda: fingerprint))
    loader = _Loader(found, document.path, running)
    loaded = loader.load(fingerprint, plugins)
    if loaded is None or loader.problems:
        raise document.error(loader.problems)
    return loaded


def check(source: Source, plugins: Plugins, seen: Glimpse | None = None) -> None:
    """Raises PolicyError for what is wrong with policies before the model is loaded. `auto` is not looked up.

    seen: what is known of the model. Of packs, which know models of their own, only the loaded one says more.
    """
    document, found = _read(located(source))
    loader = _Loader(found, document.path)
    loaded = loader.load(None, plugins)
    if loader.problems:
        raise document.error(loader.problems)
    if seen is not None and loaded is not None and not loader.packs:
        load(source, seen.imagined(loaded.vectors.provenance.fingerprint), plugins)


def resolve_vectors(name: str, base: Path | None = None) -> Path:
    """The vector file of `vectors:`: `demo`, `pack:NAME`, or a path relative to the policy file's folder."""
    from guardrail import demo

    if packs.is_reference(name):
        return packs.referred(name, None).file(VECTORS)
    return demo.VECTORS if name == BUILT_IN else _beside(name, base)


def resolve_calibration(name: str, base: Path | None = None) -> Path:
    """The calibration file that `calibration:` refers to."""
    from guardrail import demo

    if packs.is_reference(name):
        return packs.referred(name, None).file(CALIBRATION)
    return demo.CALIBRATION if name == BUILT_IN else _beside(name, base)


def default_policies(name: str) -> Path:
    """The policies for the built-in model. Raises ConfigError for other models, which need their own."""
    if name != BUILT_IN:
        raise ConfigError(
            "no policies were given: name a file or a pack (policies=, --policies; the shipped ones are for "
            "`demo`); `guardrail vectors fit` makes both vectors and policies"
        )
    return shipped_policies()["chatbot"]


def shipped_policies() -> Mapping[str, Path]:
    """The policy files shipped with the project by name: in the installed package, or beside a checkout's."""
    package = Path(__file__).parents[1]
    folders = (package / "policies", package.parent / "policies")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def located(source: Source, identify: Callable[[], Fingerprint] | None = None) -> Source:
    """The path for the name of a shipped file or of a pack's; whatever else is given stays as it is.

    Text without a suffix or a folder is a name. `pack:POLICIES` needs the model, which `identify` gives, and
    stays as it is without. Raises PolicyError if it names nothing, and ConfigError for what is no policies.
    """
    _check_kind(source)
    if isinstance(source, str | Path) and str(source).startswith(packs.PREFIX):
        return _in_pack(str(source), identify) or source
    if not isinstance(source, str) or Path(source).suffix or Path(source).name != source:
        return source
    shipped = shipped_policies()
    if source not in shipped and not Path(source).exists():
        raise PolicyError.single(f"no shipped policies have this name{suggest(source, shipped)}", source)
    return shipped.get(source, source)


def _in_pack(name: str, identify: Callable[[], Fingerprint] | None) -> Path | None:
    try:
        return packs.policies(name, identify() if identify else None)
    except PluginError as error:
        raise PolicyError.single(str(error), name) from error


def _check_kind(source: object) -> None:
    if not isinstance(source, str | os.PathLike | Mapping | PolicySet):
        kind = type(source).__name__
        raise ConfigError(
            f"policies are the name or path of a file, a mapping or a PolicySet, not a value of type {kind}"
        )


def _beside(name: str, base: Path | None) -> Path:
    """Raises ConfigError for a name that no file can have."""
    try:
        path = Path(name).expanduser()
        if b"\0" in os.fsencode(path):
            raise ValueError("it contains a null character")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be a file: {error}") from error
    return path if base is None else base / path


def _no_vectors(fingerprint: Fingerprint) -> TraitVectors:
    return TraitVectors({}, Provenance(fingerprint=fingerprint, method="", created=""))


def _read(source: Source) -> tuple[Document, Draft]:
    if isinstance(source, PolicySet):
        kept = tuple(range(len(source.policies)))
        return Document(data={}), Draft(policies=source, kept=kept)
    document = Document(data=source) if isinstance(source, Mapping) else read_document(source)
    return document, draft(document)


class _Loader:
    """One attempt to load. Continues after a problem as long as the next check makes sense."""

    def __init__(self, found: Draft, path: Path | None, running: Configuration | None = None) -> None:
        self.found, self.running = found, running
        self.path = path
        self.base = path.parent if path else None
        self.problems = list(found.problems)
        self.packs: dict[str, Pack] = {}

    def load(self, asked: Fingerprint | None, plugins: Plugins) -> ActivePolicies | None:
        policies = self.found.policies
        if policies is None:
            return None
        enabled = self._plugins(policies.plugins, plugins)
        vectors = self._vectors(policies, asked)
        fingerprint = asked or (vectors.provenance.fingerprint if vectors else UNKNOWN)
        calibration = self._calibration(policies, asked)
        inputs = CompileInputs(
            fingerprint=fingerprint,
            vectors=vectors or _no_vectors(fingerprint),
            calibration=calibration,
            actions=enabled.action_infos(),
            probes=enabled.probes(fingerprint),
            scorers=frozenset(enabled.scorers),
            certified={key: pack.other_weights() for key, pack in self.packs.items()},
            running=self.running,
        )
        complete = vectors is not None and (calibration is not None or policies.calibration is None)
        plan = self._compile(Compiler(policies, inputs), complete)
        if plan is None or vectors is None:
            return None
        return ActivePolicies(
            policies=policies,
            plan=plan,
            vectors=vectors,
            calibration=calibration,
            plugins=enabled,
            path=self.path,
            pack=self.packs.get("vectors"),
        )

    def _compile(self, compiler: Compiler, complete: bool) -> Plan | None:
        plan = None
        if complete and not self.found.invented & {("vectors",), ("calibration",)}:
            plan = compiler.compile()
        else:
            compiler.check_without_vectors()
        for problem in compiler.problems:
            self._add(problem)
        return plan

    def _plugins(self, names: Sequence[str], plugins: Plugins) -> Plugins:
        good: list[str] = []
        for i, name in enumerate(names):
            try:
                plugins.enabled([name])
                good.append(name)
            except PluginError as error:
                self._add(Problem(str(error), ("plugins", i)))
        return plugins.enabled(good)

    def _vectors(self, policies: PolicySet, asked: Fingerprint | None) -> TraitVectors | None:
        try:
            pack = self._pack("vectors", policies.vectors, policies, asked)
            path = pack.file(VECTORS) if pack else resolve_vectors(policies.vectors, self.base)
            return TraitVectors.load(path)
        except ConfigError as error:
            return self._missing("vectors", policies.vectors, asked, error)

    def _calibration(self, policies: PolicySet, asked: Fingerprint | None) -> Calibration | None:
        if policies.calibration is None:
            return None
        try:
            pack = self._pack("calibration", policies.calibration, policies, asked)
            path = pack.file(CALIBRATION) if pack else resolve_calibration(policies.calibration, self.base)
            return Calibration.load(path)
        except ConfigError as error:
            return self._missing("calibration", policies.calibration, asked, error)

    def _pack(self, key: str, name: str, policies: PolicySet, asked: Fingerprint | None) -> Pack | None:
        """The pack that the file names, if it names one. Raises PluginError if it is not for this model."""
        if not packs.is_reference(name):
            return None
        pack = packs.referred(name, asked)
        if asked is not None and not policies.allow_model_mismatch:
            packs.check_fit(pack, asked)
        self.packs[key] = pack
        return pack

    def _missing(self, key: str, name: str, asked: Fingerprint | None, error: ConfigError) -> None:
        """Only a model can say which pack `auto` is, so without one that is no problem."""
        if name != AUTO or asked is not None:
            self._add(Problem(str(error), (key,)))

    def _add(self, problem: Problem) -> None:
        if located := self.found.in_file(problem):
            self.problems.append(located)
