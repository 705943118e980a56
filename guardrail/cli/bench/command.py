"""`guardrail bench`: what the guard costs on this machine, with the user's own model and policies.

Exit codes: 0; 1 if a gate is missed or undecided, or the run was interrupted; 2 for a usage error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer
from typer import Option

from guardrail.cli.bench.output import FileOptions, show
from guardrail.cli.models import check_policies, load, silence
from guardrail.cli.options import ModelOptions, OutputOptions, PoliciesOption, settings, takes_options
from guardrail.cli.panels import Panel
from guardrail.cli.placement import device_of, dtype_argument
from guardrail.cli.progress import doing
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.bench.couple import Couple
    from guardrail.bench.memory import Sizes
    from guardrail.bench.results import Report, Row
    from guardrail.bench.settings import Settings

SHARED = "memory holds one copy: the bare model is the same one, with the guard taken off between the calls"
FEWER = "{} pairs per case, so the intervals are wide; --full measures more"
INTERRUPTED = "interrupted: this is what was measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadOptions:
    """What is measured."""

    panel: ClassVar = Panel.METHOD

    prompts: Annotated[str, Option(help="Prompt lengths in tokens. The first is the base.")] = "128"
    batches: Annotated[str, Option(help="Batch sizes. The first is the base.")] = "1"
    policy_counts: Annotated[str, Option(help="Numbers of made-up policies to measure.")] = ""
    new_tokens: Annotated[int, Option(help="Tokens per reply.")] = 32
    cases: Annotated[str, Option(help="Cases to run: allow, steer, block.")] = "allow,steer,block"
    against: Annotated[
        str,
        Option(
            help="Also benchmark: hooks, hidden-states, nnsight, prompt-guard-86m, llama-guard-1b, "
            "llama-guard-8b, or all."
        ),
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringOptions:
    """How it is measured, and what it may cost."""

    panel: ClassVar = Panel.METHOD

    full: Annotated[bool, Option("--full", help="60 pairs and 5 warm-up calls, which take minutes.")] = False
    pairs: Annotated[int | None, Option(help="Pairs of guarded and bare calls per case. Default: 20.")] = None
    warm_up: Annotated[int | None, Option(help="Calls of each kind before the first pair. Default: 2.")] = (
        None
    )
    threads: Annotated[int | None, Option(help="Threads of torch on the CPU.")] = None
    max_overhead_pct: Annotated[float | None, Option(help="Gate: maximum added time, in percent.")] = None
    max_overhead_ms: Annotated[float | None, Option(help="Gate: maximum added milliseconds.")] = None


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(bench)


@takes_options
def bench(
    model: ModelOptions,
    policies: PoliciesOption,
    workload: WorkloadOptions,
    measuring: MeasuringOptions,
    files: FileOptions,
    output: OutputOptions,
) -> None:
    """Measure what the guard costs: time to first token, time per token, throughput and memory.

    Guarded and bare calls alternate in one process; the result is their ratio with its interval. The gates
    judge the first token and the time per token of allowed prompts. A gate fails if its interval lies above
    the limit, passes if it lies below, and is inconclusive otherwise. The exit code is 1 unless all pass.
    """
    asked = _settings(model, policies, workload, measuring)
    files.check()
    report, complete = _measured(model, asked, measuring.threads)
    show(report, files, output.as_json)
    if not complete or any(row.verdict in ("fail", "inconclusive") for row in report.cases):
        raise typer.Exit(1)


# --- before any long work -----------------------------------------------------------------------------


def _settings(
    model: ModelOptions, policies: PoliciesOption, workload: WorkloadOptions, measuring: MeasuringOptions
) -> Settings:
    from guardrail.bench.goals import gate
    from guardrail.bench.pairs import PAIRS, QUICK_PAIRS, QUICK_WARM_UP, WARM_UP
    from guardrail.bench.settings import AGAINST, Settings
    from guardrail.policy.loading import default_policies

    source = policies.policies or default_policies(model.name)
    check_policies(source, model)
    pairs, warm_up = (PAIRS, WARM_UP) if measuring.full else (QUICK_PAIRS, QUICK_WARM_UP)
    return settings(
        Settings,
        workload,
        measuring,
        model=model.name,
        policies=source,
        device=device_of(model.device),
        prompts=_numbers("--prompts", workload.prompts),
        batches=_numbers("--batches", workload.batches),
        policy_counts=_numbers("--policy-counts", workload.policy_counts),
        cases=_names(workload.cases),  # type: ignore[arg-type]  # Settings checks them
        against=AGAINST if workload.against == "all" else _names(workload.against),
        pairs=pairs if measuring.pairs is None else measuring.pairs,
        warm_up=warm_up if measuring.warm_up is None else measuring.warm_up,
        gate=gate(measuring.max_overhead_pct, measuring.max_overhead_ms),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(name) for name in _names(text))
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers separated by commas, not `{text}`") from None


# --- measuring ----------------------------------------------------------------------------------------


def _measured(model: ModelOptions, asked: Settings, threads: int | None) -> tuple[Report, bool]:
    """The report, and whether the run was finished."""
    import torch

    from guardrail.bench.pairs import PAIRS
    from guardrail.bench.results import report

    if threads is not None:
        torch.set_num_threads(threads)
    found: list[Row] = []
    notes = [FEWER.format(asked.pairs)] if asked.pairs < PAIRS else []
    complete = True
    clock = "events" if asked.device.startswith("cuda") else "wall"
    try:
        with doing("looking at the model ...") as say:
            silence(model)
            for row in _rows(model, asked, notes, say):
                found.append(row)
    except KeyboardInterrupt:
        notes.append(INTERRUPTED)
        complete = False
    return report(found, asked.device, clock, notes), complete


def _rows(
    model: ModelOptions, asked: Settings, notes: list[str], say: Callable[[str], object]
) -> Iterator[Row]:
    from guardrail.bench.clocks import clock_of
    from guardrail.bench.run import Run
    from guardrail.bench.settings import copies

    sizes, clock = sizes_of(model), clock_of(asked.device)[1]
    count = copies(asked, sizes)
    notes.extend([SHARED] if count == 1 else [])
    say(f"loading {model.name} ...")
    couple = load_couple(model, asked, count)
    try:
        yield from Run(settings=asked, couple=couple, sizes=sizes, clock=clock, say=say).rows()
    finally:
        couple.close()


def sizes_of(model: ModelOptions) -> Sizes:
    """What the model takes in memory, in the type of its files or in the one that was asked for."""
    from guardrail.bench.memory import sizes_of_pretrained

    stored = sizes_of_pretrained(model.name, {})
    argument = dtype_argument(model.dtype)
    if not argument:
        return stored
    loaded = sizes_of_pretrained(model.name, argument)
    # a token of the cache is proportional to the width of the type
    return replace(loaded, weights=stored.weights * loaded.cache_per_token // stored.cache_per_token)


def load_couple(model: ModelOptions, asked: Settings, copies: int) -> Couple:
    """The guarded model and the bare one: the same if there is memory for one copy only."""
    from guardrail.bench.couple import Couple

    guarded, tokenizer = load(model)
    bare = load(model)[0] if copies > 1 else guarded
    return Couple(guarded, bare, tokenizer, asked.policies, model.engine, model.chat_template)
