"""What `guardrail evaluate` works on, read and checked before the model is loaded as far as that goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import errors
from guardrail.cli.guards import DEMO, silence
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibration.values import Calibration
    from guardrail.evaluation.material import Material
    from guardrail.evaluation.results import Evaluation
    from guardrail.evaluation.run import Setup
    from guardrail.evaluation.sweep import Speaker, SteeringSweep
    from guardrail.extract.subject import Subject
    from guardrail.policy.loading import ActivePolicies
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options that say what to evaluate."""

    model: str
    vectors: str | None
    calibration: str | None
    policies: Path | None
    data: Path | None
    layer: int | None
    neutral: Path | None
    seen: tuple[Path, ...]
    replies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """The options of the steering sweep."""

    traits: tuple[str, ...]
    definitions: tuple[str, ...]
    judge: str | None
    questions: int
    max_new_tokens: int
    capability: Path | None


def open_inputs(asked: Asked) -> Opened:
    """Raises ConfigError for files that do not fit together, and for data that cannot be used."""
    if asked.data is None and asked.model != DEMO:
        raise ConfigError("no labelled prompts: give --data FILE (only `demo` has a built-in set)")
    if asked.data is None and (asked.neutral or asked.seen):
        raise ConfigError("--neutral and --seen belong to --data")
    file = _policy_file(asked.policies)
    vectors, calibration = _vectors(asked, file), _calibration(asked, file)
    given = _given(asked, vectors, file)
    with errors().status(f"loading {asked.model} ..."):
        silence(asked.model)
        from guardrail.extract.subject import Subject

        subject = Subject.load(asked.model)
    if given is not None:
        _check_prompts(subject, given)
    loaded = _loaded(asked.policies, subject)
    return Opened(asked, vectors, calibration, subject, loaded, given or _built_in(asked, vectors, subject))


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything that an evaluation needs."""

    asked: Asked
    vectors: TraitVectors
    calibration: Calibration | None
    subject: Subject
    loaded: ActivePolicies | None
    material: Material

    def setup(self) -> Setup:
        """What is evaluated."""
        from guardrail.evaluation.run import Setup

        return Setup(
            model=self.asked.model,
            vectors=self.vectors,
            data=str(self.asked.data or "built-in"),
            calibration=self.calibration,
            plan=self.loaded.plan if self.loaded else None,
            layer=self.asked.layer,
        )

    def evaluation(self, min_auroc: float | None, max_fpr: float | None) -> Evaluation:
        """The evaluation with its gates."""
        from guardrail.evaluation import gates
        from guardrail.evaluation.run import evaluate

        if max_fpr is not None and not (self.calibration or self.loaded):
            raise ConfigError("--max-fpr needs thresholds: give --policies or --calibration")
        found = evaluate(self.setup(), self.subject, self.material)
        demanded = gates.least_auroc(found.traits, min_auroc) if min_auroc is not None else []
        demanded += gates.most_fpr(found.detectors, max_fpr) if max_fpr is not None else []
        return replace(found, gates=tuple(demanded))

    def speakers(self, asked: Steered) -> Mapping[str, Speaker]:
        """Who says something under steering, for each trait. Raises ConfigError for what is missing."""
        names = asked.traits or self.material.traits
        if unknown := [name for name in names if name not in self.vectors]:
            raise ConfigError(f"there is no vector for the trait `{unknown[0]}`")
        if self.asked.model == DEMO and asked.judge is None and not asked.definitions:
            from guardrail.evaluation.builtin import DemoSpeaker

            return {name: DemoSpeaker(name, self.subject, asked.questions) for name in names}
        return self._definition_speakers(names, asked)

    def _definition_speakers(self, names: Sequence[str], asked: Steered) -> Mapping[str, Speaker]:
        from guardrail.evaluation.capability import read_questions
        from guardrail.evaluation.speaking import DefinitionSpeaker
        from guardrail.extract.judges import find_judge
        from guardrail.plugins.manager import Plugins
        from guardrail.traits import load_definition

        if asked.judge is None:
            raise ConfigError("--steering needs a judge: --judge openai:MODEL, local:MODEL, or a plugin's")
        found = {one.name: one for one in map(load_definition, asked.definitions or names)}
        if missing := [name for name in names if name not in found]:
            raise ConfigError(f"there is no definition of `{missing[0]}`; give --definition FILE")
        judge = find_judge(asked.judge, Plugins.from_environment())
        choices = tuple(read_questions(asked.capability)) if asked.capability else ()
        return {
            name: DefinitionSpeaker(
                subject=self.subject,
                judge=judge,
                definition=found[name],
                count=asked.questions,
                choices=choices,
                max_new_tokens=asked.max_new_tokens,
            )
            for name in names
        }

    def sweep(self, speakers: Mapping[str, Speaker], replies: int) -> SteeringSweep:
        """Every way of steering, with a bar on a terminal."""
        from rich.progress import Progress

        from guardrail.evaluation.run import layers_of
        from guardrail.evaluation.sweep import sweep, ways_of

        layers = layers_of(self.setup(), list(speakers))
        total = sum(len(ways_of(self.vectors[t], layers[t], self.calibration)[0]) for t in speakers)
        shown = errors()
        with Progress(console=shown, disable=not shown.is_terminal, transient=True) as progress:
            task = progress.add_task("steering", total=total)
            return sweep(
                self.vectors, layers, speakers, self.calibration, replies, lambda: progress.advance(task)
            )


def _policy_file(path: Path | None) -> PolicyFile | None:
    if path is None:
        return None
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.plugins.manager import Plugins

    return PolicyFile.read(path, Plugins.from_environment())


def _vectors(asked: Asked, file: PolicyFile | None) -> TraitVectors:
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    if asked.vectors is None and file is None and asked.model != DEMO:
        raise ConfigError("no vectors: name a file with --vectors, or a policy file with --policies")
    own = file.vectors if file else resolve_vectors(DEMO)
    found = TraitVectors.load(resolve_vectors(asked.vectors, Path()) if asked.vectors else own)
    if file and asked.vectors and found.sha256 != TraitVectors.load(own).sha256:
        raise ConfigError(f"--vectors is another file than the policies' own, {own}")
    return found


def _calibration(asked: Asked, file: PolicyFile | None) -> Calibration | None:
    from guardrail.calibration.values import Calibration
    from guardrail.policy.loading import resolve_calibration

    if asked.calibration is not None and file is not None:
        raise ConfigError("--calibration: a policy file names its own; leave out one of the two")
    if asked.calibration is not None:
        return Calibration.load(resolve_calibration(asked.calibration, Path()))
    if file is not None and file.policies.calibration is not None:
        return Calibration.load(resolve_calibration(file.policies.calibration, asked.policies.parent))  # type: ignore[union-attr]
    own = asked.model == DEMO and file is None and asked.vectors in (None, DEMO) and asked.layer is None
    return Calibration.load(resolve_calibration(DEMO)) if own else None


def _given(asked: Asked, vectors: TraitVectors, file: PolicyFile | None) -> Material | None:
    if asked.data is None:
        return None
    from guardrail.evaluation.user import from_file

    return from_file(
        asked.data, list(vectors), seen=asked.seen, neutral=asked.neutral, below=_below(file, list(vectors))
    )


def _below(file: PolicyFile | None, traits: Sequence[str]) -> frozenset[str]:
    """Traits that the policies watch from below only: their low end is what is to be detected."""
    conditions = [c for policy in file.policies.policies for c in policy.conditions] if file else []
    sides = {trait: {c.fires for c in conditions if c.trait == trait} for trait in traits}
    return frozenset(trait for trait, found in sides.items() if found == {"below"})


def _check_prompts(subject: Subject, material: Material) -> None:
    """Raises ConfigError with every prompt that this model cannot read whole."""
    from guardrail.errors import PromptError
    from guardrail.files.json_lines import refuse

    problems: list[str] = []
    for example in material.examples():
        try:
            tokens = len(subject.render(example.messages).ids)
        except PromptError as error:
            problems.append(f"{example.place}: {error}")
            continue
        if tokens > subject.longest:
            problems.append(f"{example.place}: {tokens} tokens, and the model reads {subject.longest}")
    refuse(problems)


def _built_in(asked: Asked, vectors: TraitVectors, subject: Subject) -> Material:
    from guardrail.evaluation.builtin import Sizes, held_out

    with errors().status("asking the model, and judging its replies ..."):
        return held_out(list(vectors), subject, Sizes(replies=asked.replies))


def _loaded(policies: Path | None, subject: Subject) -> ActivePolicies | None:
    if policies is None:
        return None
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    return load(policies, subject.fingerprint, Plugins.from_environment())
