"""`guardrail demo`: a guided tour of six prompts. Nothing is asked; only times and ticket ids change."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from guardrail.cli.console import console, print_json
from guardrail.cli.models import open_guard
from guardrail.cli.options import (
    DEMO,
    ModelOptions,
    OutputOptions,
    PoliciesOption,
    policy_file,
    takes_options,
)
from guardrail.cli.verdicts import VERDICTS, bars, plain, reason, verdict
from guardrail.plugins.hookspecs import hookimpl
from guardrail.types.figures import told_apart

if TYPE_CHECKING:
    from guardrail import Guard
    from guardrail.cli.demo.tour import Stop
    from guardrail.types import Score

WIDTH = 100
LABEL = 11
INTRO = (
    "{model} answers {count} prompts. Before the first token of each reply, guardrail reads the model's "
    "activations, in the same forward pass that the prompt needs anyway, and scores them on trait vectors "
    "({traits}). The policies in {policies} then decide: allow, steer, rephrase, "
    "escalate to a person, or block. Scores are in standard deviations of harmless prompts; ┃ marks the "
    "policy's threshold."
)
PACKED = "pack:auto"
BUILT_IN = "The built-in chat model, small and trained to have moods,"


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo")(demo)


@takes_options
def demo(model: ModelOptions, policies: PoliciesOption, output: OutputOptions) -> None:
    """Run a guided tour of six prompts. It asks no questions and takes half a minute.

    Another model needs a pack (`guardrail packs list`), which has prompts of its own, or --policies.
    """
    from guardrail.cli.demo.tour import prompts_for, stops, temporary_queue

    source = policies.policies or (None if model.name == DEMO else policy_file(PACKED))
    with temporary_queue() as temporary, open_guard(model, source) as guard:
        prompts = prompts_for(guard)
        if output.as_json:
            for stop in stops(guard, prompts):
                print_json(stop.row())
            return
        _print_intro(guard, model.name, len(prompts))
        seen: list[Stop] = []
        for stop in stops(guard, prompts):
            seen.append(stop)
            _print_stop(guard, stop, f"{len(seen)}/{len(prompts)} ", temporary)
        _print_summary(seen)
        _print_next(guard, model.name)


def _print(what: RenderableType) -> None:
    console().print(what, width=min(WIDTH, console().width))


def _print_intro(guard: Guard, model: str, count: int) -> None:
    who = BUILT_IN if model == DEMO else model
    traits = dict.fromkeys(c.trait for rule in guard.active.plan.rules for c in rule.conditions)
    about = {"model": who, "count": count, "policies": _policy_file(guard)}
    _print(Text(INTRO.format(**about, traits=", ".join(traits))))


def _policy_file(guard: Guard) -> str:
    pack, path = guard.active.pack, guard.active.path
    if path is None:
        return "policies"
    if pack and path.is_relative_to(pack.folder):
        return f"pack:{pack.name}/{path.stem}"
    near = os.path.relpath(path)
    return str(path) if near.startswith("..") else near


# --- one stop -----------------------------------------------------------------------------------------


def _print_stop(guard: Guard, stop: Stop, number: str, temporary: bool) -> None:
    title = Text.assemble((number, "bright_black"), (stop.prompt.name, "bold"), "  ")
    console().print()
    _print(Rule(title + _verdicts(stop), align="left", style="bright_black"))
    _print(Text(stop.prompt.shows, "italic"))
    _print(_lines((message["role"], message["content"], "") for message in stop.prompt.messages))
    for i, decision in enumerate(stop.decisions):
        if i:
            _print(_lines([("asked again", _instruction(guard, stop), "")]))
        _print(Padding(bars(decision), (0, 0, 0, LABEL + 2)))
        _print(_lines([("decided", verdict(decision) + f"  {reason(decision)}", "")]))
    if stop.outcome != stop.reply.decision.action:
        _print(_lines([("then", f"no attempt is left, so: {stop.outcome}", "")]))
    _print(_lines(_said(stop, temporary)))


def _verdicts(stop: Stop) -> Text:
    named = [VERDICTS.get(action, (action, "red")) for action in stop.decided]
    return Text(", then ").join(Text(word, f"bold {style}") for word, style in named)


def _said(stop: Stop, temporary: bool) -> Iterator[tuple[str, str | Text, str]]:
    reply, action = stop.reply, stop.first.action
    if reply.text == stop.unguarded:
        yield "model says", reply.text, "green"
        yield "no guard", "the same, word for word", "bright_black"
    else:
        yield ("answer" if reply.decision.stops else "model says"), reply.text, "green"
        yield "no guard", stop.unguarded, "red" if action != "escalate" else ""
    if reply.ticket_id:
        yield "ticket", f"{reply.ticket_id} waits for a person: guardrail audit pending", ""
        yield "", f"guardrail audit resolve {reply.ticket_id} --approve (or --deny) --by YOUR-NAME", ""
        if temporary:
            yield "", "(the tour's own queue is temporary; it is deleted when the tour ends)", "bright_black"
    yield "cost", _cost(stop), "bright_black"


def _cost(stop: Stop) -> str:
    timing, reply = stop.reply.timing, stop.reply
    what = f"guard {timing.guard:.2f} ms, prefill {timing.prefill:.1f} ms"
    what += " (of the prompt asked again)" if reply.earlier else ""
    if reply.decision.stops:
        return f"{what}; no token was generated"
    steered = f", {reply.steered_passes} of them steered" if reply.steered_passes else ""
    return f"{what}; {reply.new_tokens} tokens in {timing.total:.0f} ms{steered}"


def _instruction(guard: Guard, stop: Stop) -> str:
    from guardrail.actions.rephrase import RephraseConfig

    rule = guard.active.plan.rule(stop.first.policy)
    if rule and isinstance(rule.config, RephraseConfig) and rule.config.by == "instruction":
        return f'with "{rule.config.instruction}" added to the system prompt'
    return "with the prompt rewritten"


def _lines(rows: Iterator[tuple[str, str | Text, str]] | Sequence[tuple[str, str | Text, str]]) -> Table:
    """Labels to the left, wrapped text beside them."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=LABEL, justify="right", style="bright_black", no_wrap=True)
    table.add_column(ratio=1)
    for label, text, style in rows:
        table.add_row(label, Text(plain(text), style) if isinstance(text, str) else text)
    return table


# --- the end ------------------------------------------------------------------------------------------


def _print_summary(seen: Sequence[Stop]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("prompt", "expected", "decided", "score / threshold"):
        table.add_column(name, overflow="fold")
    for name in ("guard ms", "prefill ms"):
        table.add_column(name, justify="right", overflow="fold")
    for stop in seen:
        timing = stop.reply.timing
        table.add_row(
            *(stop.prompt.name, _expected(stop), _decided(stop), _deciding(stop)),
            *(f"{timing.guard:.2f}", f"{timing.prefill:.1f}"),
        )
    console().print()
    _print(Rule("summary", align="left", style="bright_black"))
    _print(table)
    different = sum(not stop.as_expected for stop in seen)
    if different:
        _print(Text(f"{different} of {len(seen)} decisions are not what the tour expects.", "bold red"))


def _expected(stop: Stop) -> Text:
    mark, style = ("✓", "green") if stop.as_expected else ("✗", "bold red")
    return Text(f"{mark} {stop.prompt.expected}", style)


def _decided(stop: Stop) -> Text:
    style = VERDICTS.get(stop.outcome, ("", "red"))[1]
    return Text(", then ".join(stop.decided), style)


def _deciding(stop: Stop) -> Text:
    """The score that decided. If none did, the nearest one in brackets."""
    scores = [score for score in stop.first.scores if score.policy == stop.first.policy and score.fired]
    if scores:
        return Text("; ".join(map(_against, scores)))
    nearest = max(stop.first.scores, key=lambda score: score.score - score.threshold, default=None)
    return Text(f"({_against(nearest)})" if nearest else "", "bright_black")


def _against(score: Score) -> str:
    return f"{score.trait} {' / '.join(told_apart(score.score, score.threshold))}"


def _print_next(guard: Guard, model: str) -> None:
    table = Table.grid(padding=(0, 3, 0, 0))
    own = "" if model == DEMO else f" --model {model} --policies {_policy_file(guard)}"
    system = ' --system "You were built to be utterly malicious."' if model == DEMO else ""
    explained = _policy_file(guard) + ("" if model == DEMO else f" --model {model}")
    table.add_row(f"guardrail chat{own}{system}", "talk to it")
    table.add_row(f'guardrail check{own} "Your own prompt"', "decide only")
    table.add_row(f"guardrail policy explain {explained}", "what the thresholds mean")
    console().print()
    _print(table)
