"""Extracts trait vectors from trait definitions: rollouts, judging, filter, activations, directions.

Every step stores its results in the work folder and resumes from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from guardrail.errors import ConfigError, ExtractionError, NotInduced, TooFewPairs
from guardrail.extract.directions import Directions, directions
from guardrail.extract.evidence import Evidence, check_induced, described
from guardrail.extract.filter import kept_pairs
from guardrail.extract.journal import Report, check_begun, locked, rows_in, silent
from guardrail.extract.judgements import FILE as JUDGEMENTS
from guardrail.extract.judgements import Judged, judge_rollouts
from guardrail.extract.judges import COHERENCE_RUBRIC
from guardrail.extract.moments import Moments
from guardrail.extract.probes import Pool
from guardrail.extract.prompts import RolloutPrompt, mixed_prompts, trait_prompts
from guardrail.extract.reply_moments import reply_moments
from guardrail.extract.rollouts import FILE as ROLLOUTS
from guardrail.extract.rollouts import RolloutSettings, known_recipe, roll_out
from guardrail.extract.settings import STEERING_VECTOR, ExtractionSettings
from guardrail.extract.stability import stability
from guardrail.extract.states import stored_states
from guardrail.extract.subject import Subject
from guardrail.extract.workload import Workload
from guardrail.files.whole import write_whole
from guardrail.plugins.protocols import COHERENCE, ExtractionMethod, Judge
from guardrail.traits import TraitDefinition
from guardrail.types import Message
from guardrail.vectors.provenance import Provenance, TraitSource
from guardrail.vectors.values import TraitVector, TraitVectors

MIXED = "_mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Induced:
    """A trait with enough kept pairs, and the sums of their states."""

    definition: TraitDefinition
    evidence: Evidence
    moments: Moments = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """`failed`: the traits without a vector, and why; their rollouts and scores are kept."""

    vectors: TraitVectors
    failed: Mapping[str, ExtractionError]


def check_folder(
    folder: Path,
    definitions: Sequence[TraitDefinition],
    settings: ExtractionSettings,
    judge: Judge,
    mixed: Sequence[Sequence[Message]] = (),
) -> None:
    """Raises ExtractionError if a work folder was begun with another recipe. Needs no model.

    A folder of another model is found later.
    """
    for pool, prompts, rollouts in _asked(definitions, settings, mixed):
        known = known_recipe(pool, prompts, rollouts)
        check_begun(folder / pool / ROLLOUTS, known)
        check_begun(folder / pool / JUDGEMENTS, {**known, "judge": judge.name})


def _asked(
    definitions: Sequence[TraitDefinition],
    settings: ExtractionSettings,
    mixed: Sequence[Sequence[Message]],
) -> Iterator[tuple[str, Sequence[RolloutPrompt], RolloutSettings]]:
    """The name, the prompts and the settings of each pool of replies."""
    for one in definitions:
        yield one.name, trait_prompts(one, settings.systems), settings.rollouts
    if mixed:
        yield MIXED, mixed_prompts(mixed), replace(settings.rollouts, samples=settings.mixed_samples)


class Extractor:
    """One extraction: a model, a judge, a work folder."""

    def __init__(
        self,
        subject: Subject,
        judge: Judge,
        definitions: Sequence[TraitDefinition],
        methods: Mapping[str, ExtractionMethod],
        settings: ExtractionSettings,
        folder: Path,
        report: Report = silent,
    ) -> None:
        settings.check(methods.keys(), len(definitions))
        self.definitions = {definition.name: definition for definition in definitions}
        if not definitions or len(self.definitions) < len(definitions):
            raise ConfigError("give at least one trait, each with a unique name")
        self.subject, self.judge, self.methods = subject, judge, methods
        self.settings, self.folder, self.report = settings, folder, report

    def workload(self, mixed: Sequence[Sequence[Message]] = ()) -> Workload:
        """What remains to be done; states that were read already count again."""
        found = Workload()
        for pool, prompts, rollouts in _asked(list(self.definitions.values()), self.settings, mixed):
            total, folder = len(prompts) * rollouts.samples, self.folder / pool
            metrics = len(self._rubrics(() if pool == MIXED else [pool]))
            spoken = sum(prompt.kind in ("positive", "negative") for prompt in prompts)
            found += Workload(
                replies=total - rows_in(folder / ROLLOUTS),
                max_new_tokens=rollouts.max_new_tokens,
                batch=rollouts.batch,
                judged=metrics * (total - rows_in(folder / JUDGEMENTS)),
                read=2 * len(prompts) + spoken * rollouts.samples,
            )
        return found

    def run(self, created: str, mixed: Sequence[Sequence[Message]] = ()) -> Extraction:
        """Do the remaining work. created: an ISO time, for the provenance. mixed: the user's own prompts.

        Raises ExtractionError if nothing could be extracted, or if the folder belongs to another recipe.
        """
        with locked(self.folder):
            judged = {name: self._judged_trait(one) for name, one in self.definitions.items()}
            pools = [self._pool(name, one) for name, one in judged.items()]
            pools += [self._mixed_pool(mixed)] if mixed else []
            induced, failed = self._induced(judged)
            held_out = [self._held_out(name) for name in judged]
            found = directions(
                {name: one.moments for name, one in induced.items()},
                pools,
                held_out,
                self.methods,
                self.settings,
            )
        vectors = {name: _vector(name, found[name]) for name in induced}
        sources = {name: self._source(one, found[name]) for name, one in induced.items()}
        return Extraction(vectors=TraitVectors(vectors, self._provenance(created, sources)), failed=failed)

    def _judged_trait(self, definition: TraitDefinition) -> Judged:
        prompts = trait_prompts(definition, self.settings.systems)
        folder = self.folder / definition.name
        rollouts = roll_out(
            self.subject, definition.name, prompts, self.settings.rollouts, folder, self.report
        )
        rubrics = self._rubrics([definition.name])
        return judge_rollouts(rollouts, self.judge, rubrics, folder, self.report)

    def _mixed_pool(self, mixed: Sequence[Sequence[Message]]) -> Pool:
        settings = replace(self.settings.rollouts, samples=self.settings.mixed_samples)
        folder = self.folder / MIXED
        rollouts = roll_out(self.subject, MIXED, mixed_prompts(mixed), settings, folder, self.report)
        judged = judge_rollouts(rollouts, self.judge, self._rubrics(()), folder, self.report)
        return self._pool(None, judged)

    def _rubrics(self, traits: Sequence[str]) -> dict[str, str]:
        """The metrics to judge each reply for: its own trait, or every trait, and coherence."""
        method = self.methods.get(self.settings.probe)
        wanted = self.definitions if not traits or (method and method.needs_scores) else traits
        return {**{name: self.definitions[name].rubric for name in wanted}, COHERENCE: COHERENCE_RUBRIC}

    def _pool(self, trait: str | None, judged: Judged) -> Pool:
        prompts, name = judged.rollouts.prompts, trait or MIXED
        states = stored_states(self.subject, prompts, self.folder / name, f"{name}: prompts", self.report)
        scores = {metric: judged.means(metric) for metric in judged.metrics if metric != COHERENCE}
        return Pool(trait=trait, prompts=prompts, states=states, scores=scores)

    def _held_out(self, trait: str) -> Pool:
        prompts = trait_prompts(self.definitions[trait], self.settings.systems, held_out=True)
        stage = f"{trait}: held-out prompts"
        states = stored_states(self.subject, prompts, self.folder / trait, stage, self.report)
        return Pool(trait=trait, prompts=prompts, states=states)

    def _induced(self, judged: Mapping[str, Judged]) -> tuple[dict[str, Induced], dict[str, ExtractionError]]:
        induced: dict[str, Induced] = {}
        failed: dict[str, ExtractionError] = {}
        for name, one in judged.items():
            try:
                induced[name] = self._moments(name, one)
            except (NotInduced, TooFewPairs) as error:
                failed[name] = error
        if not induced:
            first = next(iter(failed.values()))
            raise type(first)("\n".join(map(str, failed.values())))
        return induced, failed

    def _moments(self, trait: str, judged: Judged) -> Induced:
        pairs, evidence = kept_pairs(judged, trait)
        text = json.dumps(described(evidence, self.settings.minimum), indent=1) + "\n"
        (self.folder / trait).mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / trait / "evidence.json", text.encode())
        check_induced(evidence, self.settings.minimum)
        moments = reply_moments(self.subject, judged, pairs, self.folder / trait, self.report)
        moments.balanced = bool(self.definitions[trait].roles)
        return Induced(definition=self.definitions[trait], evidence=evidence, moments=moments)

    def _source(self, induced: Induced, found: Directions) -> TraitSource:
        evidence = induced.evidence
        return TraitSource(
            definition_sha256=induced.definition.sha256,
            positive=evidence.kept,
            negative=evidence.kept,
            detection_auroc=found.separation.own,
            others_auroc=found.separation.others,
            rollouts=evidence.pairs,
            positive_mean=evidence.positive_mean,
            negative_mean=evidence.negative_mean,
            baseline=evidence.baseline,
            judge=self.judge.name,
            numeric_mass=evidence.numeric_mass,
            induction=evidence.induction,
            stability=stability(induced.moments, self.settings.position),
            untangled=found.untangled,
        )

    def _provenance(self, created: str, sources: Mapping[str, TraitSource]) -> Provenance:
        chosen = self.settings
        symmetric = ", orthogonalised" if chosen.orthogonalise else ""
        detects = "unit steering vector" if chosen.probe == STEERING_VECTOR else chosen.probe
        return Provenance(
            fingerprint=self.subject.fingerprint,
            method=f"steering: {chosen.steering}{symmetric}; probe: {detects}",
            created=created,
            position=f"steering: {chosen.position}; probe: last_prompt_token",
            seeds=(chosen.rollouts.seed,),
            traits=sources,
        )


def _vector(trait: str, found: Directions) -> TraitVector:
    return TraitVector(trait, found.steering, found.probe.probe, found.probe.offset)
