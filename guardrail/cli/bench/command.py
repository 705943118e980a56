"""`guardrail bench`: what the guard costs on this machine, for one's own model and policies.

Exit codes: 0, 1 where a gate is missed or undecided or the run was interrupted, 2 for a usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.bench.output import show
from guardrail.cli.console import JsonFlag, ModelName, PoliciesFile, errors
from guardrail.cli.guards import silence
from guardrail.errors import ConfigError

if TYPE_CHECKING:
    from guardrail.bench.results import Report, Row
    from guardrail.bench.run import Run
    from guardrail.bench.settings import Settings

SHARED = "memory holds one copy: bare is the same model with the guard taken off between the calls"
INTERRUPTED = "interrupted: this is what was measured"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(bench)


def bench(
    model: ModelName = "demo",
    policies: PoliciesFile = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.")] = "auto",
    prompts: Annotated[
        str, typer.Option("--prompts", help="Prompt lengths in tokens; the first is the base.")
    ] = "128",
    batches: Annotated[str, typer.Option("--batches", help="Batch sizes; the first is the base.")] = "1",
    policy_counts: Annotated[
        str,
        typer.Option("--policy-counts", help="Numbers of made-up policies on the layers that yours read."),
    ] = "",
    new_tokens: Annotated[int, typer.Option(help="Length of each reply.")] = 32,
    cases: Annotated[str, typer.Option("--cases", help="Of allow, steer, block.")] = "allow,steer,block",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="Measured too: hooks, hidden-states, nnsight, prompt-guard-86m, llama-guard-1b, "
            "llama-guard-8b, or all.",
        ),
    ] = "",
    pairs: Annotated[int, typer.Option(help="Alternating pairs for each case.")] = 60,
    warm_up: Annotated[int, typer.Option(help="Calls of each before the first pair.")] = 5,
    threads: Annotated[int | None, typer.Option(help="Threads of torch on the CPU.")] = None,
    max_overhead_pct: Annotated[
        float | None,
        typer.Option(help="Gate: exit 1 unless allowed prompts cost at most this much more, in percent."),
    ] = None,
    max_overhead_ms: Annotated[
        float | None, typer.Option(help="Gate: exit 1 unless they cost at most this many milliseconds more.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the results as JSON to this file.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with figures (needs the extra `report`).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure what the guard costs: time to first token, time per token, throughput and memory.

    Guarded and bare calls alternate in one process; what counts is their ratio, with its interval. The gates
    judge the first token and the time per token of allowed prompts: an interval above the limit fails, one
    below it passes, one that straddles it is inconclusive; all but passing exits with 1.
    """
    settings = _settings(
        *(model, policies, device, prompts, batches, policy_counts, new_tokens, cases, against),
        *(pairs, warm_up, max_overhead_pct, max_overhead_ms),
    )
    if html is not None:
        from guardrail.report.bench import check_installed

        check_installed()
    report, complete = _measured(settings, threads)
    show(report, out, html, as_json)
    if not complete or any(row.verdict in ("fail", "inconclusive") for row in report.cases):
        raise typer.Exit(1)


# --- before any long work -----------------------------------------------------------------------------


def _settings(
    model: str,
    policies: Path | None,
    device: str,
    prompts: str,
    batches: str,
    policy_counts: str,
    new_tokens: int,
    cases: str,
    against: str,
    pairs: int,
    warm_up: int,
    max_pct: float | None,
    max_ms: float | None,
) -> Settings:
    from guardrail.bench.goals import gate
    from guardrail.bench.settings import AGAINST, Settings
    from guardrail.policy.loading import default_policies

    source = policies or default_policies(model)
    _check_policies(source)
    return Settings(
        model=model,
        policies=source,
        device=_device(device),
        prompts=_numbers("--prompts", prompts),
        batches=_numbers("--batches", batches),
        policy_counts=_numbers("--policy-counts", policy_counts),
        new_tokens=new_tokens,
        cases=_names(cases),  # type: ignore[arg-type]  # Settings checks them
        against=AGAINST if against == "all" else _names(against),
        pairs=pairs,
        warm_up=warm_up,
        gate=gate(max_pct, max_ms),
    )


def _check_policies(path: Path) -> None:
    """What is wrong with the file itself is said before a model is loaded."""
    from guardrail.files.yaml import read_document
    from guardrail.policy.file import draft

    document = read_document(path)
    if problems := draft(document).problems:
        raise document.error(list(problems))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use --device cpu")
    if not name.startswith(("cuda", "cpu")):
        raise ConfigError(f"unknown device `{name}`; use cpu, cuda or auto")
    return name


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in _names(text))
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers separated by commas, not `{text}`") from None


# --- measuring ----------------------------------------------------------------------------------------


def _measured(settings: Settings, threads: int | None) -> tuple[Report, bool]:
    """The report, and whether the run came to its end."""
    import torch

    from guardrail.bench.results import report

    if threads is not None:
        torch.set_num_threads(threads)
    found: list[Row] = []
    notes: list[str] = []
    clock = "events" if settings.device.startswith("cuda") else "wall"
    try:
        with errors().status("looking at the model ...") as status:
            silence(settings.model)
            for row in _rows(settings, notes, status.update):
                found.append(row)
        complete = True
    except KeyboardInterrupt:
        notes.append(INTERRUPTED)
        complete = False
    return report(found, settings.device, clock, notes), complete


def _rows(settings: Settings, notes: list[str], say: Callable[[str], object]) -> Iterator[Row]:
    from guardrail.bench.clocks import clock_of
    from guardrail.bench.couple import load
    from guardrail.bench.memory import sizes_of_pretrained
    from guardrail.bench.run import Run
    from guardrail.bench.settings import copies

    sizes = sizes_of_pretrained(settings.model, {})
    count = copies(settings, sizes)
    notes.extend([SHARED] if count == 1 else [])
    say(f"loading {settings.model} ...")
    couple = load(settings.model, settings.device, count, settings.policies)
    try:
        run: Run = Run(
            settings=settings, couple=couple, sizes=sizes, clock=clock_of(settings.device)[1], say=say
        )
        yield from run.rows()
    finally:
        couple.close()
