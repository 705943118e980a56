"""The report of `guardrail calibrate`, and the labelled prompts that it may show beside the benign ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from guardrail.cli.calibrate.benign import BenignFile, prompts_of
from guardrail.cli.evaluate.options import PageOption
from guardrail.cli.progress import counted
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.calibrate.contrast import Contrast
    from guardrail.calibrate.fit import Calibrated
    from guardrail.calibrate.policy_file import PolicyFile
    from guardrail.calibrate.sample import BenignPrompt
    from guardrail.evaluation.material import Example
    from guardrail.extract.subject import Subject
    from guardrail.types import Position
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(PageOption):
    """The report that is written."""

    against: Annotated[
        Path | None,
        Option(help="Labelled prompts (as in `evaluate --data`): how many of those with a trait are found."),
    ] = None

    def read(self, vectors: TraitVectors) -> list[Example]:
        """The labelled prompts; none without --against. Raises ConfigError with every bad line."""
        from guardrail.evaluation.reading import read_labelled

        found = read_labelled(self.against, list(vectors)).test if self.against else []
        if self.against and not any(example.positive for example in found):
            raise ConfigError(f"{self.against}: no prompt is labelled as showing a trait")
        return found

    def contrast(
        self,
        labelled: Sequence[Example],
        system: str | None,
        subject: Subject,
        vectors: TraitVectors,
        policies: PolicyFile | None,
    ) -> Contrast | None:
        """What probes read of the labelled prompts. Raises ConfigError with every one that does not fit."""
        from guardrail.calibrate import projections as collect
        from guardrail.calibrate.contrast import contrast

        if self.against is None:
            return None
        probes = collect.probes(vectors, policies.probes(subject.fingerprint) if policies else None)
        positions = collect.positions(probes.values())
        prompts = _rendered(labelled, self.against, system, subject, positions)
        with counted("reading labelled prompts", len(prompts)) as advance:
            return contrast(self.against.name, subject, prompts, probes, advance)

    def publish(self, made: Calibrated, found: Contrast | None) -> None:
        """Write the report, if one is wanted."""
        if self.html is not None:
            from guardrail.report.calibration import page

            page(made, found).write(self.html)


def _rendered(
    labelled: Sequence[Example],
    source: Path,
    system: str | None,
    subject: Subject,
    positions: Collection[Position],
) -> list[tuple[BenignPrompt, tuple[str, ...]]]:
    """The prompts as the model reads them, with the traits that they show. --system goes where none is."""
    from guardrail.calibrate.sample import read, some

    file = BenignFile(str(source), [(example.place, example.messages) for example in labelled])
    named = prompts_of(file, system, own=True)
    found = read(named, lambda messages: subject.render(messages, positions).ids, subject.longest)
    if found.problems:
        raise ConfigError("\n".join(some(found.problems)))
    return list(zip(found.prompts, [example.positive for example in labelled], strict=True))
