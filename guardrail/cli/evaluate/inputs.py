"""The inputs of `guardrail evaluate`, read and checked before the model is loaded if possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.evaluate.options import DataOptions, GateOptions
from guardrail.cli.models import imagined, load_subject, vectors_of
from guardrail.cli.options import DEMO, ModelOptions, RunnerOptions
from guardrail.cli.progress import doing
from guardrail.cli.prompts import InputPrompt, with_system
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibration.values import Calibration
    from guardrail.evaluation.material import Example, Material
    from guardrail.evaluation.results import Evaluation
    from guardrail.evaluation.run import Setup
    from guardrail.extract.subject import Subject
    from guardrail.policy.plan import Plan
    from guardrail.types import Position
    from guardrail.vectors.values import TraitVectors


def read_inputs(model: ModelOptions, policies: Path | None, data: DataOptions, gates: GateOptions) -> Inputs:
    """Raises ConfigError for files that do not fit together, and for data that cannot be used."""
    if data.data is None and model.name != DEMO:
        raise ConfigError("no labelled prompts: give --data FILE (only `demo` has a built-in set)")
    file = _policy_file(policies)
    vectors, calibration = vectors_of(model.name, data.vectors, file), _calibration(model, data, file)
    if gates.max_fpr is not None and calibration is None and file is None:
        raise ConfigError("--max-fpr needs thresholds: give --policies or --calibration")
    found = Inputs(
        model=model,
        policies=policies,
        data=data,
        file=file,
        vectors=vectors,
        calibration=calibration,
        given=_given(data, vectors, file),
    )
    found.check()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The files, read and checked without the model. `given` is what --data holds."""

    model: ModelOptions
    policies: Path | None
    data: DataOptions
    file: PolicyFile | None
    vectors: TraitVectors
    calibration: Calibration | None
    given: Material | None

    @property
    def traits(self) -> Sequence[str]:
        """The traits that are evaluated."""
        from guardrail.evaluation.builtin import known_traits

        return self.given.traits if self.given else known_traits(self.vectors)

    def setup(self, plan: Plan | None = None) -> Setup:
        """What is evaluated."""
        from guardrail.evaluation.run import Setup

        return Setup(
            model=self.model.name,
            vectors=self.vectors,
            data=str(self.data.data or "built-in"),
            calibration=self.calibration,
            plan=plan,
            layer=self.data.layer,
        )

    def layers(self, traits: Sequence[str]) -> dict[str, int]:
        """The layer that each trait is evaluated at. Raises ConfigError if there is none."""
        from guardrail.evaluation.run import layers_of

        return layers_of(self.setup(), traits)

    def check(self) -> None:
        """Raises ConfigError for layers that there are not, and for files that are not for the model."""
        from guardrail.evaluation.run import check_setup

        self.layers(self.traits)
        if self.given is not None:
            check_setup(self.setup(), imagined(self.model, self.vectors), self.given)

    def opened(self, spread: RunnerOptions) -> Opened:
        """With the model, which is loaded. Raises ConfigError for what does not fit it."""
        subject = load_subject(self.model, spread=spread)
        if self.given is not None:
            _check_prompts(subject, self.given, _positions(self.vectors, self.file, subject))
        return Opened(
            inputs=self,
            subject=subject,
            plan=_plan(self.policies, subject),
            material=self.given or _built_in(self.data, self.vectors, subject),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Everything that an evaluation needs."""

    inputs: Inputs
    subject: Subject
    plan: Plan | None
    material: Material

    def evaluation(self, asked: GateOptions) -> Evaluation:
        """The evaluation with its gates."""
        from guardrail.evaluation import gates
        from guardrail.evaluation.run import evaluate

        found = evaluate(self.inputs.setup(self.plan), self.subject, self.material)
        demanded = gates.least_auroc(found.traits, asked.min_auroc) if asked.min_auroc is not None else []
        demanded += gates.most_fpr(found.detectors, asked.max_fpr) if asked.max_fpr is not None else []
        return replace(found, gates=tuple(demanded))


def _policy_file(path: Path | None) -> PolicyFile | None:
    if path is None:
        return None
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.plugins.manager import Plugins

    return PolicyFile.read(path, Plugins.from_environment())


def _calibration(model: ModelOptions, data: DataOptions, file: PolicyFile | None) -> Calibration | None:
    from guardrail.calibration.values import Calibration
    from guardrail.policy.loading import resolve_calibration

    if data.calibration is not None and file is not None:
        raise ConfigError("--calibration: a policy file names its own; leave out one of the two")
    if data.calibration is not None:
        return Calibration.load(resolve_calibration(data.calibration, Path()))
    if file is not None and file.policies.calibration is not None:
        path = file.document.path
        return Calibration.load(resolve_calibration(file.policies.calibration, path and path.parent))
    own = model.name == DEMO and file is None and data.vectors in (None, DEMO) and data.layer is None
    return Calibration.load(resolve_calibration(DEMO)) if own else None


def _given(data: DataOptions, vectors: TraitVectors, file: PolicyFile | None) -> Material | None:
    if data.data is None:
        return None
    from guardrail.evaluation.user import from_file

    traits = list(vectors)
    found = from_file(
        data.data, traits, seen=data.seen or (), neutral=data.neutral, below=_below(file, traits)
    )
    return found if data.system is None else _with_system(found, data.system)


def _with_system(material: Material, system: str) -> Material:
    """All prompts with a system message. An example that is in several sets stays one object."""
    examples = list({id(e): e for e in (*material.examples(), *material.training)}.values())
    prompts = with_system((InputPrompt(name=e.place, content=e.messages) for e in examples), system)
    made = {
        id(e): replace(e, messages=tuple(prompt.content))  # type: ignore[arg-type]
        for e, prompt in zip(examples, prompts, strict=True)
    }

    def put(part: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(made[id(example)] for example in part)

    sets = ("labelled", "neutral", "hard_benign", "training")
    monitored = {trait: put(part) for trait, part in material.monitored.items()}
    return replace(material, monitored=monitored, **{name: put(getattr(material, name)) for name in sets})


def _below(file: PolicyFile | None, traits: Sequence[str]) -> frozenset[str]:
    """Traits whose policies all fire below a threshold: their low end is the one to detect."""
    conditions = [c for policy in file.policies.policies for c in policy.conditions] if file else []
    sides = {trait: {c.fires for c in conditions if c.trait == trait} for trait in traits}
    return frozenset(trait for trait, found in sides.items() if found == {"below"})


def _positions(vectors: TraitVectors, file: PolicyFile | None, subject: Subject) -> list[Position]:
    from guardrail.calibrate.projections import positions, probes

    return positions(probes(vectors, file.probes(subject.fingerprint) if file else None).values())


def _check_prompts(subject: Subject, material: Material, positions: Sequence[Position]) -> None:
    """Raises ConfigError with every prompt that does not fit into the model."""
    from guardrail.files.json_lines import refuse

    found = ((example, _misfit(subject, example, positions)) for example in material.examples())
    refuse([f"{example.place}: {problem}" for example, problem in found if problem])


def _misfit(subject: Subject, example: Example, positions: Sequence[Position]) -> str | None:
    """Why a prompt does not fit into the model."""
    from guardrail.errors import PromptError

    try:
        tokens = len(subject.render(example.messages, positions).ids)
    except PromptError as error:
        return str(error)
    return f"{tokens} tokens, and the model reads {subject.longest}" if tokens > subject.longest else None


def _built_in(data: DataOptions, vectors: TraitVectors, subject: Subject) -> Material:
    from guardrail.evaluation.builtin import FULL, QUICK, held_out

    sizes = FULL if data.full else QUICK
    with doing("generating replies and judging them ..."):
        return held_out(list(vectors), subject, replace(sizes, replies=data.replies or sizes.replies))


def _plan(policies: Path | None, subject: Subject) -> Plan | None:
    if policies is None:
        return None
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    return load(policies, subject.fingerprint, Plugins.from_environment()).plan
