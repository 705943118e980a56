"""`guardrail check`: what the policies say about prompts. Nothing is generated.

Exit codes: 0 all prompts pass; 1 an enforced policy fired, or an error counts as a finding; 2 a prompt could
not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer import Option

from guardrail.cli.console import console, errors, print_json
from guardrail.cli.models import open_guard
from guardrail.cli.options import ModelOptions, OutputOptions, PoliciesOption, PromptOptions, takes_options
from guardrail.cli.progress import counted
from guardrail.cli.prompts import InputPrompt, chosen
from guardrail.cli.verdicts import (
    FORESEEN,
    bars,
    is_finding,
    notes,
    plain,
    reason,
    short,
    verdict,
)
from guardrail.errors import PromptError
from guardrail.files.decision_rows import decision_row
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail import Guard
    from guardrail.types import Check

BATCH = 32


@dataclass(frozen=True, slots=True)
class Checked:
    """A prompt with its decision. An `unreadable` prompt never reached the policies."""

    prompt: InputPrompt
    check: Check
    known: tuple[str, ...] = ()
    """Warnings about the policies, not about this prompt."""
    unreadable: bool = False
    together: int = 1
    """The prompts of its batch."""

    @property
    def exit_code(self) -> int:
        """2 is stronger than 1."""
        return 2 if self.unreadable else int(is_finding(self.check.decision))


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check")(check)


@takes_options
def check(
    given: PromptOptions,
    model: ModelOptions,
    policies: PoliciesOption,
    tags: Annotated[str, Option(help="Comma-separated tags for every prompt.")] = "",
    *,
    output: OutputOptions,
) -> None:
    """Evaluate prompts without generating replies. The exit code is 1 if an enforced policy fires.

    Prompts are evaluated in batches; the latency shown is that of the whole batch.
    """
    found = chosen(given)
    shared = frozenset(tag.strip() for tag in tags.split(",") if tag.strip())
    codes: list[int] = []
    with open_guard(model, policies.policies) as guard, _bar(len(found), output.as_json) as advance:
        for number, item in enumerate(_checked(guard, found, shared), 1):
            _print(number, item, output.as_json)
            advance(1)
            codes.append(item.exit_code)
    if not output.as_json and len(codes) > 1:
        _print_total(codes)
    if code := max(codes):
        raise typer.Exit(code)


def _bar(total: int, as_json: bool) -> AbstractContextManager[Callable[[int], None]]:
    """A bar for more than one batch, but not in the middle of JSON on a terminal."""
    shown = errors() if as_json or not console().is_terminal else console()
    if total <= BATCH or (as_json and console().is_terminal):
        return nullcontext(lambda count: None)
    return counted("checking", total, shown)


def _checked(guard: Guard, prompts: Sequence[InputPrompt], shared: frozenset[str]) -> Iterator[Checked]:
    """In the order given; prompts with the same tags and conversation share a batch."""
    for (tags, conversation), group in groupby(prompts, key=lambda p: (p.tags, p.conversation)):
        same = list(group)
        for start in range(0, len(same), BATCH):
            yield from _batch(guard, same[start : start + BATCH], tags | shared, conversation)


def _batch(
    guard: Guard, prompts: Sequence[InputPrompt], tags: frozenset[str], conversation: str | None
) -> list[Checked]:
    contents = [prompt.content for prompt in prompts]
    try:
        checks = guard.check_many(contents, tags=tags, conversation=conversation)
    except PromptError as error:
        if len(prompts) == 1:
            return [_unreadable(guard, prompts[0], error)]
        # decide the rest of the batch without it
        return [item for prompt in prompts for item in _batch(guard, [prompt], tags, conversation)]
    known, count = guard.active.plan.warnings, len(prompts)
    pairs = zip(prompts, checks, strict=True)
    return [Checked(prompt, found, known, together=count) for prompt, found in pairs]


def _unreadable(guard: Guard, prompt: InputPrompt, error: PromptError) -> Checked:
    from guardrail.types import Check, Decision

    plan = guard.active.plan
    decision = Decision(
        status="error",
        action="block",
        would_action="block",
        policy_sha256=plan.policy_sha256,
        vectors_sha256=plan.vectors_sha256,
        fail_open=plan.fail_open,
        warnings=plan.warnings,
        error=f"{prompt.name}: {error}",
    )
    return Checked(prompt, Check(decision=decision, audit_id=""), plan.warnings, unreadable=True)


def _print(number: int, item: Checked, as_json: bool) -> None:
    decision = item.check.decision
    if as_json:
        print_json(decision_row(decision, item.check.audit_id or None, item.check.timing))
        return
    head = Text(f"{number:>3}  ") + verdict(decision, FORESEEN) + "  "
    console().print(head + short(item.prompt.text, max(20, console().width - len(head))), soft_wrap=True)
    if decision.scores:
        _print_indented(bars(decision))
    for line in (reason(decision), *notes(decision, item.known)):
        _print_indented(Text(plain(line)))
    if not item.unreadable:
        _print_indented(Text(_times(item), "bright_black"))
    console().print()


def _times(item: Checked) -> str:
    timing, count = item.check.timing, item.together
    prefill = f"prefill {timing.prefill:.1f} ms" + (f" for the batch of {count}" if count > 1 else "")
    return f"guard {timing.guard:.2f} ms, {prefill}"


def _print_indented(what: Table | Text) -> None:
    console().print(Padding(what, (0, 0, 0, 5), expand=False))


def _print_total(codes: Sequence[int]) -> None:
    unread = codes.count(2)
    console().print(
        f"{len(codes)} prompts: {codes.count(0)} passed, {codes.count(1)} did not"
        + (f", {unread} could not be read" if unread else "")
    )
