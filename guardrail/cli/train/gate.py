"""`guardrail train gate`: whether a finetune may ship, by a policy, with evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from guardrail.cli.audit import SealOptions
from guardrail.cli.console import note, warn
from guardrail.cli.definitions import own_definition
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.judges import checked, chosen
from guardrail.cli.models import load_subject
from guardrail.cli.options import DEMO, JudgeOptions, ModelOptions, OutputOptions, takes_options
from guardrail.cli.progress import staged
from guardrail.cli.train.gate_output import publish
from guardrail.cli.train.models import BaseOptions, checked_vectors, load_finetune, one_named
from guardrail.errors import ConfigError, TraitError

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject
    from guardrail.plugins.protocols import Judge
    from guardrail.train.gate import GatePlan, PersonaFile, PersonaGate
    from guardrail.traits import TraitDefinition
    from guardrail.vectors.values import TraitVectors


CACHE = "judge-cache.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """What is judged by which policy, and where the evidence goes."""

    tuned: Annotated[str, Option(help="Finetune of the base: folder or hub id of a model or adapter.")]
    policy: Annotated[Path, Option(help="Persona policy (YAML): what must not move, and by how much.")]
    data: Annotated[
        Path | None, Option(help="Training data: JSON Lines, Parquet or a folder saved by `datasets`.")
    ] = None
    evidence: Annotated[Path, Option(help="Evidence file. An existing one is appended to.")] = Path(
        "evidence.jsonl"
    )
    work: Annotated[
        Path | None,
        Option(help="Folder that keeps measurements, to resume from. Default: next to --evidence."),
    ] = None

    @property
    def folder(self) -> Path:
        """The folder that keeps what was measured."""
        return self.work or self.evidence.with_name(f"{self.evidence.name}.work")


@takes_options
def gate(
    options: GateOptions,
    base: BaseOptions,
    judge: JudgeOptions,
    seal: SealOptions,
    page: PageOption,
    output: OutputOptions,
) -> None:
    """Check a finetune by a policy: shifts, judged traits, capability and data, also under triggers.

    The exit code is 0 only if every limit was shown to hold; 1 if one was exceeded, is inconclusive or was
    not measured. `guardrail audit verify` checks the evidence. If interrupted, run the same command again to
    resume.
    """
    from guardrail.train.gate import EvidenceFile, GatePlan, Sealed, load, record
    from guardrail.train.screening.files import open_data

    page.check()
    file = load(options.policy, lambda name: _vectors(name, options.policy, base))
    vectors = checked_vectors(base, _vectors(file.policy.vectors, options.policy, base))
    for path in (options.data, file.file("data", "clean"), file.file("held_out_loss", "conversations")):
        if path is not None:
            open_data(path)
    plan = GatePlan.of(file, _definitions(file, list(file.policy.traits), base), options.data)
    tuned = one_named(options.tuned, "--tuned")
    asked, each_s = _judge(file, judge, base, plan, options.folder)
    evidence = EvidenceFile(options.evidence, seal.key(), seal.anchor)
    for text in plan.notes:
        warn(text)
    gate = _gate(plan, vectors, asked, options, base)
    with staged() as report:
        found = replace(gate, report=report).run(
            lambda: _base(base, plan, each_s),
            lambda ancestor: load_finetune(tuned, base, ancestor),
            (base.name, tuned),
        )
    head = record(evidence, found, plan, vectors.sha256, asked.name if asked else None)
    publish(found, file, Sealed(options.evidence, head), page.html, plan.notes, as_json=output.as_json)
    if not found.passed:
        raise typer.Exit(1)


def _base(base: ModelOptions, plan: GatePlan, judge_s: float | None) -> Subject:
    """The base, after a word on how long it all will take."""
    subject = load_subject(base)
    if plan.policy.judged:
        from guardrail.extract.workload import forecast, measured

        prompts = plan.conditions[0].conversations[plan.policy.judged[0]]
        note(forecast(plan.workload(subject.rows), measured(subject, prompts), judge_s))
    return subject


def _gate(
    plan: GatePlan, vectors: TraitVectors, judge: Judge | None, options: GateOptions, base: ModelOptions
) -> PersonaGate:
    from guardrail.train.gate import PersonaGate

    others = _known(plan.file, [name for name in vectors if name not in plan.policy.traits], base)
    return PersonaGate(plan=plan, vectors=vectors, judge=judge, work=options.folder, others=others)


def _vectors(name: str | None, policy: Path, base: ModelOptions) -> TraitVectors:
    """The vectors that a policy names. Raises ConfigError, VectorError."""
    from guardrail.policy.loading import resolve_vectors
    from guardrail.vectors.values import TraitVectors

    name = name or (DEMO if base.name == DEMO else None)
    if name is None:
        raise ConfigError("`vectors` is missing: it names a file of the base model's vectors")
    return TraitVectors.load(resolve_vectors(name, policy.parent))


def _definitions(file: PersonaFile, names: Sequence[str], base: ModelOptions) -> list[TraitDefinition]:
    try:
        return [own_definition(name, file.file("definition"), base.name) for name in names]
    except TraitError as error:
        raise ConfigError(f"{error}; `definition` in {file.path} names a file or folder") from error


def _known(file: PersonaFile, names: Sequence[str], base: ModelOptions) -> list[TraitDefinition]:
    """The definitions of other traits, as far as there are any."""
    found: list[TraitDefinition] = []
    for name in names:
        try:
            found.append(own_definition(name, file.file("definition"), base.name))
        except TraitError:
            continue
    return found


def _judge(
    file: PersonaFile, options: JudgeOptions, base: ModelOptions, plan: GatePlan, folder: Path
) -> tuple[Judge | None, float | None]:
    """(the judge of `--judge`, else of the policy, its seconds a request). Raises UselessJudge.

    No judge if nothing is judged.
    """
    judged = [one for one in plan.definitions if one.name in plan.policy.judged]
    if not judged:
        return None, None
    found = chosen(replace(options, judge=options.judge or file.policy.judge), base, folder / CACHE)
    return found, checked(found, judged).seconds_each
