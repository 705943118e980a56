"""`guardrail judge agreement`: whether a judge says what people say, before anything is built on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from guardrail.cli.console import JsonFlag, print_json, print_table

if TYPE_CHECKING:
    from guardrail.extract.judges.agreement import Agreement, Estimate
    from guardrail.extract.judges.labels import Compared, Label

JudgeName: TypeAlias = Annotated[
    str, typer.Option("--judge", help="`openai:MODEL`, `local:MODEL`, `demo`, or a plugin's.")
]
BaseUrl: TypeAlias = Annotated[str, typer.Option("--base-url", help="An OpenAI-compatible endpoint.")]
KeyVariable: TypeAlias = Annotated[
    str, typer.Option("--api-key-env", help="The environment variable that holds the key.")
]
CacheFile: TypeAlias = Annotated[
    Path | None, typer.Option("--judge-cache", help="Keep scores in this file; nothing is judged twice.")
]
RequestRate: TypeAlias = Annotated[
    float | None, typer.Option("--requests-per-minute", min=0.01, help="No more than so many requests.")
]
Concurrency: TypeAlias = Annotated[int, typer.Option("--concurrency", min=1, help="Requests at once.")]
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Compare judges with people.", no_args_is_help=True)
    group.command("agreement")(agreement)
    group.callback()(_group)
    app.add_typer(group, name="judge")


def _group() -> None:
    # with a callback typer keeps `agreement` as a subcommand although it is the only one
    return


def agreement(
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", help="JSON Lines: question, answer, trait, and label (true/false) or score."
        ),
    ],
    judge: JudgeName = "demo",
    definitions: Annotated[
        list[Path] | None, typer.Option("--definition", help="A definition file for a trait of your own.")
    ] = None,
    base_url: BaseUrl = OPENAI_URL,
    api_key_env: KeyVariable = OPENAI_KEY,
    judge_cache: CacheFile = None,
    requests_per_minute: RequestRate = None,
    concurrency: Concurrency = 8,
    as_json: JsonFlag = False,
) -> None:
    """Agreement and Cohen's kappa of a judge with human labels, with 95 % intervals."""
    from guardrail.extract.endpoint.client import EndpointSettings
    from guardrail.extract.judges import find_judge
    from guardrail.extract.judges.labels import compare, read_labels
    from guardrail.plugins.manager import Plugins

    found = read_labels(labels)
    rubrics = _rubrics(found, definitions or [])
    endpoint = EndpointSettings(
        base_url=base_url,
        api_key_env=api_key_env,
        requests_per_minute=requests_per_minute,
        concurrency=concurrency,
    )
    asked = find_judge(judge, Plugins.from_environment(), endpoint=endpoint, cache=judge_cache)
    compared = compare(asked, found, rubrics)
    if as_json:
        print_json(compared)
    else:
        _print(compared)


def _rubrics(labels: Sequence[Label], files: Sequence[Path]) -> Mapping[str, str]:
    from guardrail.plugins.protocols import COHERENCE
    from guardrail.traits import load_definition

    own = {d.name: d for d in map(load_definition, files)}
    traits = dict.fromkeys(label.trait for label in labels if label.trait != COHERENCE)
    return {trait: (own[trait] if trait in own else load_definition(trait)).rubric for trait in traits}


def _print(compared: Compared) -> None:
    columns = (
        "trait",
        "n",
        "refused",
        "agreement",
        "kappa",
        "r",
        "both",
        "judge only",
        "people only",
        "neither",
    )
    print_table(
        columns, [_row(a) for a in compared.traits], title=f"{compared.judge} against people, 95 % intervals"
    )


def _row(a: Agreement) -> tuple[object, ...]:
    numbers = (_interval(a.agreement), _interval(a.kappa), _interval(a.correlation))
    return (a.trait, a.n, a.refused, *numbers, a.both, a.judge_only, a.people_only, a.neither)


def _interval(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
