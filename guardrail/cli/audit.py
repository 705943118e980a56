"""`guardrail audit tail | verify | pending | resolve`: past decisions, and tickets that wait for a person."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from typer import Argument, Option

from guardrail.cli.console import print_json, print_table
from guardrail.cli.options import OutputOptions, add_group, takes_options
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardrail.actions.review_queue import ReviewQueue
    from guardrail.plugins.audit import AuditRecord
    from guardrail.types import Ticket

LogFile: TypeAlias = Annotated[Path, Argument(help="Audit log: JSON Lines or SQLite.")]
QueueFile: TypeAlias = Annotated[Path | None, Option("--queue", help="File of the review queue.")]


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "Read audit logs, and resolve tickets that await human review."
    add_group(app, "audit", about, tail=tail, verify=verify, pending=pending, resolve=resolve)


@takes_options
def tail(
    log: LogFile,
    lines: Annotated[int, Option("--lines", "-n", min=1, help="How many requests to show.")] = 20,
    *,
    output: OutputOptions,
) -> None:
    """Show the last requests of an audit log, one per line."""
    from guardrail.audit import read
    from guardrail.audit.lines import record_to_json

    records = deque(read(log), maxlen=lines)
    if output.as_json:
        for record in records:
            print_json(record_to_json(record))
        return
    columns = ("time", "id", "kind", "status", "action", "policy", "top score", "outcome")
    print_table(columns, [_row(record) for record in records])


def _row(record: AuditRecord) -> tuple[object, ...]:
    decision = (
        record.decision
        if record.reply_decision is None or not record.reply_decision.stops
        else record.reply_decision
    )
    top = max(decision.scores, key=lambda score: (score.fired, score.score - score.threshold), default=None)
    score = f"{top.trait} {top.score:.2f} / {top.threshold:.2f}" if top else None
    action = decision.action if decision.action == decision.would_action else f"({decision.would_action})"
    return (
        *(record.time, record.id, record.kind, decision.status, action),
        *(decision.policy, score, record.outcome),
    )


@takes_options
def verify(
    log: LogFile,
    head: Annotated[str | None, Option(help="Head that an earlier run printed.")] = None,
    *,
    output: OutputOptions,
) -> None:
    """Check the hash chain of an audit log. The exit code is 1 if lines were edited, lost or cut off."""
    from guardrail.audit import verify as verify_log

    report = verify_log(log, head)
    if output.as_json:
        print_json(asdict(report) | {"ok": report.ok})
    else:
        for fault in report.faults:
            typer.echo(f"{log}:{fault.line}: {fault.message}")
        typer.echo(
            f"{'ok' if report.ok else 'NOT COMPLETE'}: {report.lines} lines, {report.requests} requests"
        )
        typer.echo(f"interrupted: {report.interrupted}\nhead: {report.head}")
    if not report.ok:
        raise typer.Exit(1)


@takes_options
def pending(queue: QueueFile = None, *, output: OutputOptions) -> None:
    """List the tickets that wait for a person, oldest first."""
    from guardrail.actions.review_queue import ticket_to_json

    tickets = _queue(queue).pending()
    if output.as_json:
        print_json([ticket_to_json(ticket) for ticket in tickets])
    elif tickets:
        columns = ("ticket", "created", "policy", "last message")
        print_table(columns, [(t.id, t.created, t.policy, _last(t)) for t in tickets])
    else:
        typer.echo("no ticket is waiting")


@takes_options
def resolve(
    ticket: Annotated[str, Argument(help="Id of the ticket.")],
    approve: Annotated[bool, Option("--approve/--deny", help="The decision.")],
    by: Annotated[str, Option(help="Who decides: a name that the records will keep.")],
    note: Annotated[str | None, Option(help="Reason for the decision.")] = None,
    queue: QueueFile = None,
    *,
    output: OutputOptions,
) -> None:
    """Approve or deny a ticket, once."""
    from guardrail.actions.review_queue import ticket_to_json

    if not by.strip():
        raise ConfigError("--by must name who decides")
    done = _queue(queue).resolve(ticket, approve, by, note)
    if output.as_json:
        print_json(ticket_to_json(done))
    else:
        typer.echo(f"{done.id}: {done.state} by {done.resolver}")


def _queue(path: Path | None) -> ReviewQueue:
    from guardrail.actions.review_queue import ReviewQueue

    return ReviewQueue(path)


def _last(ticket: Ticket) -> str:
    text = ticket.messages[-1].content if ticket.messages else ""
    return text if len(text) <= 60 else f"{text[:59]}…"
