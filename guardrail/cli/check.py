"""`guardrail check`: what the policies say about prompts. Nothing is generated.

Exit codes: 0 all pass, 1 an enforced policy fired or an error is no pass, 2 a prompt could not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrail.cli.console import JsonFlag, ModelName, PoliciesFile, console, errors, print_json
from guardrail.cli.guards import open_guard
from guardrail.cli.prompts import InputPrompt, chosen
from guardrail.cli.verdicts import bars, decision_row, is_finding, notes, plain, reason, short, verdict
from guardrail.errors import PromptError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from guardrail import Guard
    from guardrail.types import Check

BATCH = 32


@dataclass(frozen=True, slots=True)
class Checked:
    """A prompt with what was decided; `unreadable` is a prompt that never reached the policies."""

    prompt: InputPrompt
    check: Check
    known: tuple[str, ...] = ()
    """Warnings about the policies, not about this prompt."""
    unreadable: bool = False

    @property
    def exit_code(self) -> int:
        """2 is stronger than 1."""
        return 2 if self.unreadable else int(is_finding(self.check.decision))


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check")(check)


def check(
    prompts: Annotated[list[str] | None, typer.Argument(help="Prompts, each one user message.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--input", help='JSON Lines: strings or {"messages": [...]}; - is the standard input.'),
    ] = None,
    model: ModelName = "demo",
    policies: PoliciesFile = None,
    tags: Annotated[str, typer.Option("--tags", help="Tags of all prompts, separated by commas.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Decide on prompts and generate nothing. Exit code 1 where an enforced policy fires.

    Prompts are decided in batches; the latency shown is that of a prompt's whole batch.
    """
    found = chosen(prompts or [], file)
    shared = frozenset(tag.strip() for tag in tags.split(",") if tag.strip())
    codes: list[int] = []
    with open_guard(model, policies) as guard, _progress(len(found), as_json) as advance:
        for number, item in enumerate(_checked(guard, found, shared), 1):
            _print(number, item, as_json)
            advance()
            codes.append(item.exit_code)
    if not as_json and len(codes) > 1:
        _print_total(codes)
    if code := max(codes):
        raise typer.Exit(code)


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
        # the others of its batch have to be decided without it
        return [item for prompt in prompts for item in _batch(guard, [prompt], tags, conversation)]
    known = guard.active.plan.warnings
    return [Checked(prompt, found, known) for prompt, found in zip(prompts, checks, strict=True)]


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


@contextmanager
def _progress(total: int, as_json: bool) -> Generator[Callable[[], None]]:
    """A bar for more than one batch, on a terminal, and not in the middle of JSON."""
    from rich.progress import Progress

    shown = errors() if as_json or not console().is_terminal else console()
    off = total <= BATCH or not shown.is_terminal or (as_json and console().is_terminal)
    with Progress(console=shown, disable=off, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task("checking", total=total)
        yield lambda: progress.advance(task)


def _print(number: int, item: Checked, as_json: bool) -> None:
    decision = item.check.decision
    if as_json:
        print_json(decision_row(decision, item.check.audit_id or None, item.check.timing))
        return
    from rich.text import Text

    head = Text(f"{number:>3}  ") + verdict(decision) + "  "
    console().print(head + short(item.prompt.text, max(20, console().width - len(head))), soft_wrap=True)
    if decision.scores:
        _print_indented(bars(decision))
    for line in (reason(decision), *notes(decision, item.known)):
        _print_indented(Text(plain(line)))
    if not item.unreadable:
        timing = item.check.timing
        _print_indented(Text(f"guard {timing.guard:.2f} ms, prefill {timing.prefill:.1f} ms", "bright_black"))
    console().print()


def _print_indented(what: Table | Text) -> None:
    from rich.padding import Padding

    console().print(Padding(what, (0, 0, 0, 5), expand=False))


def _print_total(codes: Sequence[int]) -> None:
    unread = codes.count(2)
    console().print(
        f"{len(codes)} prompts: {codes.count(0)} passed, {codes.count(1)} did not"
        + (f", {unread} could not be read" if unread else "")
    )
