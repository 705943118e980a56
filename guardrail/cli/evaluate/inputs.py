"""The inputs of `guardrail evaluate`, read and checked before the model is loaded if possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.cli.console import note
from guardrail.cli.evaluate.options import DataOptions, GateOptions, SteeringOptions
from guardrail.cli.judges import checked, endpoint_of, find
from guardrail.cli.models import load_subject, vectors_of
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, RunnerOptions
from guardrail.cli.progress import counted, doing
from guardrail.cli.prompts import InputPrompt, with_system
from guardrail.errors import ConfigError
from guardrail.types import Message

if TYPE_CHECKING:
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibration.values import Calibration
    from guardrail.evaluation.material import Example, Material
    from guardrail.evaluation.results import Evaluation
    from guardrail.evaluation.run import Setup
    from guardrail.evaluation.sweep import Speaker, SteeringSweep
    from guardrail.extract.subject import Subject
    from guardrail.extract.workload import Workload
    from guardrail.policy.loading import ActivePolicies
    from guardrail.traits import TraitDefinition
    from guardrail.types import Position
    from guardrail.vectors.values import TraitVectors


def open_inputs(
    model: ModelOptions,
    policies: Path | None,
    data: DataOptions,
    gates: GateOptions,
    steering: SteeringOptions,
    spread: RunnerOptions | None = None,
) -> Opened:
    """Raises ConfigError for files that do not fit together, and for data that cannot be used."""
    if data.data is None and model.name != DEMO:
        raise ConfigError("no labelled prompts: give --data FILE (only `demo` has a built-in set)")
    if steering.capability is not None:
        from guardrail.evaluation.capability import read_questions

        read_questions(steering.capability)
    file = _policy_file(policies)
    vectors, calibration = vectors_of(model.name, data.vectors, file), _calibration(model, data, file)
    if gates.max_fpr is not None and calibration is None and file is None:
        raise ConfigError("--max-fpr needs thresholds: give --policies or --calibration")
    given = _given(data, vectors, file)
    subject = load_subject(model, spread=spread)
    if given is not None:
        _check_prompts(subject, given, _positions(vectors, file, subject))
    return Opened(
        model=model,
        data=data,
        vectors=vectors,
        calibration=calibration,
        subject=subject,
        loaded=_loaded(policies, subject),
        material=given or _built_in(data, vectors, subject),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Everything that an evaluation needs."""

    model: ModelOptions
    data: DataOptions
    vectors: TraitVectors
    calibration: Calibration | None
    subject: Subject
    loaded: ActivePolicies | None
    material: Material

    def setup(self) -> Setup:
        """What is evaluated."""
        from guardrail.evaluation.run import Setup

        return Setup(
            model=self.model.name,
            vectors=self.vectors,
            data=str(self.data.data or "built-in"),
            calibration=self.calibration,
            plan=self.loaded.plan if self.loaded else None,
            layer=self.data.layer,
        )

    def evaluation(self, asked: GateOptions) -> Evaluation:
        """The evaluation with its gates."""
        from guardrail.evaluation import gates
        from guardrail.evaluation.run import evaluate

        found = evaluate(self.setup(), self.subject, self.material)
        demanded = gates.least_auroc(found.traits, asked.min_auroc) if asked.min_auroc is not None else []
        demanded += gates.most_fpr(found.detectors, asked.max_fpr) if asked.max_fpr is not None else []
        return replace(found, gates=tuple(demanded))

    def speakers(self, asked: SteeringOptions, judge: JudgeOptions) -> Mapping[str, Speaker]:
        """For each trait, what replies under steering. Raises ConfigError for anything that is missing."""
        names = asked.trait or self.material.traits
        self.vectors.require(names)
        if self.model.name == DEMO and judge.judge is None and not asked.definition:
            from guardrail.evaluation.builtin import DemoSpeaker

            return {name: DemoSpeaker(name, self.subject, asked.questions) for name in names}
        return self._definition_speakers(names, asked, judge)

    def _definition_speakers(
        self, names: Sequence[str], asked: SteeringOptions, judge: JudgeOptions
    ) -> Mapping[str, Speaker]:
        from guardrail.evaluation.capability import read_questions
        from guardrail.evaluation.speaking import DefinitionSpeaker

        if judge.judge is None:
            raise ConfigError("--steering needs a judge: --judge openai:MODEL, local:MODEL, or a plugin's")
        definitions = definitions_of(names, asked.definition or names)
        scoring = find(judge.judge, endpoint_of(judge), self.model)
        checked(scoring, list(definitions.values()))
        choices = tuple(read_questions(asked.capability)) if asked.capability else ()
        return {
            name: DefinitionSpeaker(
                subject=self.subject,
                judge=scoring,
                definition=definition,
                count=asked.questions,
                choices=choices,
                max_new_tokens=asked.max_new_tokens,
            )
            for name, definition in definitions.items()
        }

    def _tell(self, work: Workload) -> None:
        from guardrail.extract.workload import forecast, measured

        prompts = [example.messages for example in self.material.labelled] or [(Message("user", "Hello"),)]
        note(forecast(work, measured(self.subject, prompts), None))

    def sweep(self, speakers: Mapping[str, Speaker], replies: int, new_tokens: int) -> SteeringSweep:
        """Every way of steering, with a bar on a terminal. Tells how long it takes before it begins."""
        from guardrail.evaluation.run import layers_of
        from guardrail.evaluation.sweep import sweep, ways_of
        from guardrail.extract.workload import Workload

        layers = layers_of(self.setup(), list(speakers))
        total = sum(len(ways_of(self.vectors[t], layers[t], self.calibration)[0]) for t in speakers)
        self._tell(Workload(replies=total * replies, max_new_tokens=new_tokens, judged=2 * total * replies))
        with counted("steering", total) as advance:
            return sweep(self.vectors, layers, speakers, self.calibration, replies, lambda: advance(1))


def definitions_of(names: Sequence[str], given: Sequence[str]) -> Mapping[str, TraitDefinition]:
    """The definitions of these traits. Raises ConfigError if one is missing."""
    from guardrail.traits import load_definition

    found = {one.name: one for one in map(load_definition, given)}
    if missing := [name for name in names if name not in found]:
        raise ConfigError(f"there is no definition of `{missing[0]}`; give --definition FILE")
    return {name: found[name] for name in names}


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
    from guardrail.errors import PromptError
    from guardrail.files.json_lines import refuse

    problems: list[str] = []
    for example in material.examples():
        try:
            tokens = len(subject.render(example.messages, positions).ids)
        except PromptError as error:
            problems.append(f"{example.place}: {error}")
            continue
        if tokens > subject.longest:
            problems.append(f"{example.place}: {tokens} tokens, and the model reads {subject.longest}")
    refuse(problems)


def _built_in(data: DataOptions, vectors: TraitVectors, subject: Subject) -> Material:
    from guardrail.evaluation.builtin import FULL, QUICK, held_out

    sizes = FULL if data.full else QUICK
    with doing("generating replies and judging them ..."):
        return held_out(list(vectors), subject, replace(sizes, replies=data.replies or sizes.replies))


def _loaded(policies: Path | None, subject: Subject) -> ActivePolicies | None:
    if policies is None:
        return None
    from guardrail.plugins.manager import Plugins
    from guardrail.policy.loading import load

    return load(policies, subject.fingerprint, Plugins.from_environment())
