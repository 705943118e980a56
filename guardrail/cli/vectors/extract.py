"""`guardrail vectors extract`: from trait definitions to a vector file.

Exit codes: 0 done, 1 some traits could not be extracted, 2 none could, or a usage or configuration error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, errors, print_json, print_table
from guardrail.errors import ConfigError, VectorError

if TYPE_CHECKING:
    from guardrail.extract.extraction import Extraction
    from guardrail.extract.settings import ExtractionSettings
    from guardrail.plugins.manager import Plugins
    from guardrail.plugins.protocols import Judge
    from guardrail.traits import TraitDefinition
    from guardrail.types import Message
    from guardrail.vectors.provenance import TraitSource
    from guardrail.vectors.values import TraitVectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What was asked for, read and checked as far as no model is needed."""

    definitions: Sequence[TraitDefinition]
    mixed: Sequence[Sequence[Message]]
    settings: ExtractionSettings
    out: Path
    work: Path


def register(group: typer.Typer) -> None:
    """Add the verb to `guardrail vectors`."""
    group.command("extract")(extract)


def extract(
    out: Annotated[Path, typer.Option("--out", help="The vector file to write (.safetensors).")],
    trait: Annotated[
        list[str] | None, typer.Option("--trait", help="A trait's name or its file; may be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All traits that come with the package.")] = False,
    model: ModelName = "demo",
    judge: Annotated[
        str, typer.Option("--judge", help="demo, openai:MODEL, local:MODEL, or a plugin's.")
    ] = "demo",
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Of the judge's endpoint, for openai:MODEL.")
    ] = None,
    api_key_env: Annotated[
        str, typer.Option("--api-key-env", help="The environment variable that holds its key.")
    ] = "OPENAI_API_KEY",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Replies to each prompt.")] = 10,
    work: Annotated[
        Path | None, typer.Option("--work", help="Where rollouts and scores are kept (default: OUT.work).")
    ] = None,
    probe: Annotated[
        str,
        typer.Option(
            "--probe",
            help="What detects: `steering` (the unit steering vector), or an extraction method: difference, "
            "logistic, lda, pca, contrast, regression. `regression` judges every reply for every trait.",
        ),
    ] = "contrast",
    steering: Annotated[
        str, typer.Option("--steering", help="What steers: an extraction method.")
    ] = "difference",
    position: Annotated[
        str,
        typer.Option("--position", help="Steering from response_mean, last_prompt_token or prompt_mean."),
    ] = "response_mean",
    orthogonalise: Annotated[
        bool, typer.Option("--orthogonalise", help="Make the traits' steering vectors orthogonal.")
    ] = False,
    mixed: Annotated[
        Path | None,
        typer.Option("--mixed", help="Prompts of your own to fit probes on: JSON Lines as `check --input`."),
    ] = None,
    mixed_samples: Annotated[
        int, typer.Option("--mixed-samples", min=1, help="Replies to each of them.")
    ] = 1,
    minimum: Annotated[int, typer.Option("--min-pairs", min=1, help="Kept pairs that a trait needs.")] = 20,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Length of a reply.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0, max=1, help="1 is everything.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the replies.")] = 0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows at a time; the unit of resume.")] = 64,
    positive_system: Annotated[
        str, typer.Option("--positive-system", help="How an instruction becomes a system prompt.")
    ] = "{instruction}",
    negative_system: Annotated[
        str, typer.Option("--negative-system", help="The same for those that forbid the trait.")
    ] = "{instruction}",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make trait vectors: roll out, judge, filter, read activations. Killed, it goes on where it was."""
    from guardrail.extract.prompts import SystemPrompts
    from guardrail.extract.rollouts import RolloutSettings
    from guardrail.extract.settings import ExtractionSettings

    settings = ExtractionSettings(
        rollouts=RolloutSettings(
            samples=samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            batch=batch,
        ),
        systems=SystemPrompts(positive=positive_system, negative=negative_system),
        minimum=minimum,
        position=position,
        steering=steering,
        probe=probe,
        orthogonalise=orthogonalise,
        mixed_samples=mixed_samples,
    )
    inputs = Inputs(
        definitions=_definitions(trait or [], every, model),
        mixed=_conversations(mixed),
        settings=settings,
        out=_writable(out),
        work=work or out.with_name(f"{out.name}.work"),
    )
    found = run(inputs, model, device, judge, base_url, api_key_env)
    _show(found, inputs.out, as_json)
    if found.failed:
        raise typer.Exit(1)


def run(
    inputs: Inputs, model: str, device: str | None, judge: str, base_url: str | None, api_key_env: str
) -> Extraction:
    """Extract and write the file."""
    from guardrail.plugins.manager import Plugins

    plugins = Plugins.from_environment()
    inputs.settings.check(plugins.extraction_methods.keys(), len(inputs.definitions))
    with errors().status(f"loading {model} ..."):
        from guardrail.cli.guards import silence
        from guardrail.extract.extraction import Extractor
        from guardrail.extract.subject import Subject

        silence(model)

        asked = _judge(judge, plugins, base_url, api_key_env, inputs.work)
        subject = Subject.load(model, device=device, rows=inputs.settings.rollouts.batch)
    from guardrail.cli.progress import staged

    with staged() as report:
        extractor = Extractor(
            subject,
            asked,
            inputs.definitions,
            plugins.extraction_methods,
            inputs.settings,
            inputs.work,
            report,
        )
        found = extractor.run(_now(), inputs.mixed)
    found.vectors.save(inputs.out)
    return found


def _judge(name: str, plugins: Plugins, base_url: str | None, api_key_env: str, work: Path) -> Judge:
    from guardrail.extract.endpoint.client import EndpointSettings
    from guardrail.extract.judges import find_judge

    settings = EndpointSettings(base_url=base_url or EndpointSettings().base_url, api_key_env=api_key_env)
    work.mkdir(parents=True, exist_ok=True)
    return find_judge(name, plugins, endpoint=settings, cache=work / "judge-cache.sqlite")


def _definitions(traits: Sequence[str], every: bool, model: str) -> list[TraitDefinition]:
    from guardrail.demo import TRAITS
    from guardrail.engines.transformers.pretrained import DEMO
    from guardrail.traits import builtin_traits, load_definition

    own = {path.stem: path for path in TRAITS.glob("*.yaml")} if model == DEMO else {}
    names = [*(sorted(own) or builtin_traits() if every else ()), *traits]
    if not names:
        raise ConfigError("no trait: name one with --trait, or all with --all")
    return [load_definition(own.get(name, name)) for name in dict.fromkeys(names)]


def _conversations(path: Path | None) -> list[tuple[Message, ...]]:
    from guardrail.cli.prompts import from_json_lines
    from guardrail.pipeline.request import request

    prompts = from_json_lines(path) if path else []
    read = [(prompt.name, request("check", prompt.content)) for prompt in prompts]
    if bad := [f"{name}: {one.unreadable}" for name, one in read if one.unreadable]:
        raise ConfigError("\n".join(bad))
    return [one.messages for _, one in read]


def _writable(out: Path) -> Path:
    if out.exists():
        raise VectorError(f"{out} exists; nothing was done")
    if not out.parent.is_dir():
        raise VectorError(f"{out.parent} is no folder")
    return out


def _now() -> str:
    """Now, or what SOURCE_DATE_EPOCH says, for files that are to be the same in every build."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return now.isoformat(timespec="seconds")


def _show(found: Extraction, out: Path, as_json: bool) -> None:
    failed = {trait: str(error) for trait, error in found.failed.items()}
    if as_json:
        vectors = found.vectors
        print_json({"out": out, "sha256": vectors.sha256, "provenance": vectors.provenance, "failed": failed})
        return
    _print_found(found.vectors)
    for message in failed.values():
        errors().print(f"[bold red]not extracted[/]  {message}")
    typer.echo(f"wrote {out}. No layer is chosen: name one in policies, or run `guardrail vectors layers`")


def _print_found(vectors: TraitVectors) -> None:
    scores = ("score with", "without", "plain")
    columns = ("trait", "pairs kept", "of", *scores, "split half", "auroc", "others", "at layer")
    print_table(columns, [(name, *_row(source)) for name, source in vectors.provenance.traits.items()])
    typer.echo(
        "score: mean judged score where the trait is asked for, forbidden, and without a system prompt. "
        "split half: cosine of two halves. auroc, others: from plain prompts and from other traits, held out."
    )


def _row(source: TraitSource) -> tuple[object, ...]:
    """At the layer that separates best."""
    rest = source.others_auroc or source.detection_auroc
    areas = [own + other for own, other in zip(source.detection_auroc, rest, strict=True)]
    best = areas.index(max(areas))
    halves = source.stability.split_half[best + 1] if source.stability else None
    others = source.others_auroc[best] if source.others_auroc else None
    scores = (source.positive_mean, source.negative_mean, source.baseline)
    return (source.positive, source.rollouts, *scores, halves, source.detection_auroc[best], others, best + 1)
