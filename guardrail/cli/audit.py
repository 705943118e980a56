"""`guardrail audit tail | verify | prune | pending | resolve | deliveries`: past decisions, and tickets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from typer import Argument, Option

from guardrail.cli.console import print_json, print_table
from guardrail.cli.options import OutputOptions, add_group, takes_options
from guardrail.errors import ConfigError
from guardrail.plugins.hookspecs import hookimpl
from guardrail.types.figures import told_apart

if TYPE_CHECKING:
    from guardrail.actions.review_queue import ReviewQueue
    from guardrail.audit import Key, VerifyReport
    from guardrail.audit.sinks import ChainedSink
    from guardrail.plugins.audit import AuditRecord
    from guardrail.types import Ticket

LogFile: TypeAlias = Annotated[Path, Argument(help="Audit log: JSON Lines or SQLite.")]
QueueFile: TypeAlias = Annotated[Path | None, Option("--queue", help="File of the review queue.")]
KEY_VARIABLE = "GUARDRAIL_AUDIT_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealOptions:
    """What a log is signed with, and where its end is sealed."""

    key_file: Annotated[Path | None, Option(help="File with the log's key.")] = None
    key_env: Annotated[
        str | None, Option(help=f"Environment variable with the log's key. Default: {KEY_VARIABLE}, if set.")
    ] = None
    anchor: Annotated[Path | None, Option(help="File to which the log's end was sealed.")] = None

    def key(self) -> Key | None:
        """The key of the log, if one is given. Raises ConfigError."""
        from guardrail.audit import load_key
        from guardrail.plugins.audit import KeySource

        if self.key_file is not None:
            return load_key(KeySource(file=str(self.key_file)))
        given = self.key_env or (KEY_VARIABLE if KEY_VARIABLE in os.environ else None)
        return load_key(KeySource(env=given)) if given else None


@hookimpl
def guardrail_cli(app: typer.Typer) -> None:
    """Add the verb."""
    about = "Read, verify and prune audit logs, and resolve tickets that await human review."
    tickets = {"pending": pending, "resolve": resolve, "deliveries": deliveries}
    add_group(app, "audit", about, tail=tail, verify=verify, prune=prune, **tickets)


@takes_options
def tail(
    log: LogFile,
    lines: Annotated[int, Option("--lines", "-n", min=1, help="How many requests to show.")] = 20,
    changes: Annotated[bool, Option("--changes", help="Show starts, changes and reviews instead.")] = False,
    *,
    output: OutputOptions,
) -> None:
    """Show the last requests of an audit log, one per line."""
    from guardrail.audit import history, read
    from guardrail.audit.lines import record_to_json

    if changes:
        for record in deque(history(log), maxlen=lines):
            print_json(asdict(record))
        return
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
    score = f"{top.trait} {' / '.join(told_apart(top.score, top.threshold))}" if top else None
    action = decision.action if decision.action == decision.would_action else f"({decision.would_action})"
    return (
        *(record.time, record.id, record.kind, decision.status, action),
        *(decision.policy, score, record.outcome),
    )


@takes_options
def verify(
    logs: Annotated[list[Path], Argument(help="Audit log, and the files that it was rotated to, if any.")],
    head: Annotated[str | None, Option(help="Head that an earlier run printed.")] = None,
    *,
    seal: SealOptions,
    output: OutputOptions,
) -> None:
    """Check an audit log. The exit code is 1 if lines were edited, forged, lost or cut off.

    Without a key, whoever can write the file can forge it from any line on. Without an anchor or a head,
    lines at the end can be cut off.
    """
    from guardrail.audit import verify_all

    reports = verify_all(logs, head, seal.key(), seal.anchor)
    for report in reports:
        if output.as_json:
            print_json(asdict(report) | {"ok": report.ok})
        else:
            typer.echo("\n".join(_described(report)))
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def _described(report: VerifyReport) -> Iterator[str]:
    from guardrail.files.json_lines import together

    yield from together([f"{report.path}:{fault.line}: {fault.message}" for fault in report.faults])
    yield f"{'ok' if report.ok else 'DAMAGED'}: {report.lines} lines, {report.requests} requests"
    if report.removed:
        yield f"pruned: {report.removed} older lines"
    unchecked = ", not checked without the key" if report.signed and not report.key_given else ""
    yield f"signed: {report.signed} lines{unchecked}"
    if report.unsealed is not None:
        yield f"anchored: all but the last {report.unsealed} lines"
    yield f"interrupted: {report.interrupted}\nhead: {report.head}"


@takes_options
def prune(
    log: Annotated[Path | None, Argument(help="Audit log: JSON Lines or SQLite.")] = None,
    tickets: Annotated[
        bool, Option("--tickets", help="Remove from the review queue what was resolved before that time.")
    ] = False,
    queue: QueueFile = None,
    *,
    keep: Annotated[str, Option(help="How long to keep records: 90d, 12w, 6m (months), 1y.")],
    seal: SealOptions,
    output: OutputOptions,
) -> None:
    """Remove old records from an audit log, which can still be verified, and old tickets.

    Give the log's key and anchor. Tickets that nobody has resolved stay, however old they are.
    """
    from guardrail.audit.keep import cutoff

    if log is None and not tickets:
        raise ConfigError("name an audit log, or give --tickets for the review queue")
    if queue is not None and not tickets:
        raise ConfigError("--queue belongs to --tickets")
    until = cutoff(keep, datetime.now(UTC))
    if log is not None:
        _prune_log(log, until, seal, output)
    if tickets:
        removed = _queue(queue).prune(until)
        if output.as_json:
            print_json({"until": until, "tickets": removed})
        else:
            typer.echo(f"pruned: {removed} tickets that were resolved before {until}")


def _prune_log(log: Path, until: str, seal: SealOptions, output: OutputOptions) -> None:
    from guardrail.audit import Anchor
    from guardrail.audit import prune as prune_log

    key = seal.key()
    anchor = None if seal.anchor is None else Anchor(seal.anchor, log, key=key)
    done = prune_log(log, until, key, anchor)
    if output.as_json:
        print_json(None if done is None else asdict(done))
    elif done is None:
        typer.echo(f"nothing is older than {until}")
    else:
        typer.echo(f"pruned: {done.removed} lines since the log began, up to {done.until}")


@takes_options
def pending(queue: QueueFile = None, *, output: OutputOptions) -> None:
    """List the tickets that wait for a person, oldest first."""
    from guardrail.actions.review_queue import ticket_to_json

    tickets = (waiting := _queue(queue)).pending()
    if output.as_json:
        print_json([ticket_to_json(ticket) for ticket in tickets])
    elif tickets:
        columns = ("ticket", "created", "policy", "last message")
        print_table(columns, [(t.id, t.created, t.policy, _last(t)) for t in tickets])
        typer.echo("to decide: guardrail audit resolve TICKET --by NAME --approve (or --deny, --answer TEXT)")
    else:
        typer.echo(f"no ticket is waiting in {waiting.path}")


@takes_options
def resolve(
    ticket: Annotated[str, Argument(help="Id of the ticket.")],
    by: Annotated[str, Option(help="Who decides: a name that the records will keep.")],
    approve: Annotated[bool | None, Option("--approve/--deny", help="The model answers, or not.")] = None,
    answer: Annotated[str | None, Option(help="Your own answer, in place of the model's.")] = None,
    note: Annotated[str | None, Option(help="Reason for the decision.")] = None,
    queue: QueueFile = None,
    log: Annotated[Path | None, Option(help="Audit log that also records who decided.")] = None,
    *,
    seal: SealOptions,
    output: OutputOptions,
) -> None:
    """Approve, deny or answer a ticket, once."""
    from guardrail.actions.review_queue import ticket_to_json
    from guardrail.plugins.audit import Review

    if not by.strip():
        raise ConfigError("--by must name who decides")
    if (approve is None) == (answer is None):
        raise ConfigError("give exactly one of --approve, --deny and --answer")
    written = None if log is None else _sink(log, seal)
    done = _queue(queue).resolve(ticket, approve or False, by, note, answer)
    if written is not None:
        written.reviewed(Review(time=done.resolved or "", ticket_id=done.id, state=done.state, reviewer=by))
    if output.as_json:
        print_json(ticket_to_json(done))
    else:
        typer.echo(f"{done.id}: {done.state} by {done.resolver}")


@takes_options
def deliveries(
    retry: Annotated[bool, Option("--retry", help="Send them now.")] = False,
    ticket: Annotated[str | None, Option(help="Only this ticket.")] = None,
    queue: QueueFile = None,
    *,
    output: OutputOptions,
) -> None:
    """List the tickets that webhooks do not have yet: those that wait, and dead letters, which nobody sends.

    With --retry the exit code is 1 if some are still there; it needs the secrets in the environment.
    """
    from guardrail.actions.courier import retried
    from guardrail.actions.deliveries import undelivered
    from guardrail.actions.review_queue import ticket_to_json

    store = _queue(queue)
    if retry:
        retried(store, ticket)
    left = [one for one in undelivered(store) if ticket in (None, one.id)]
    if output.as_json:
        print_json([ticket_to_json(one) for one in left])
    elif left:
        columns = ("ticket", "created", "delivery", "attempts", "url", "failure")
        print_table(columns, [_delivery_row(one) for one in left])
    else:
        typer.echo("every webhook has its tickets")
    if retry and left:
        raise typer.Exit(1)


def _delivery_row(ticket: Ticket) -> tuple[object, ...]:
    delivery = ticket.delivery
    known = () if delivery is None else (delivery.state, delivery.attempts, delivery.url, delivery.failure)
    return (ticket.id, ticket.created, *known)


def _queue(path: Path | None) -> ReviewQueue:
    """The queue. Raises ConfigError for a named file that does not exist: nothing waits there for sure."""
    from guardrail.actions.review_queue import ReviewQueue

    if path is not None and not path.is_file():
        raise ConfigError(f"--queue {path}: there is no such file")
    return ReviewQueue(path)


def _sink(log: Path, seal: SealOptions) -> ChainedSink:
    """An existing log, open to be written to. Raises AuditError."""
    from guardrail.audit import Anchor
    from guardrail.audit.sinks import opened

    key = seal.key()
    return opened(log, key, None if seal.anchor is None else Anchor(seal.anchor, log, 0.0, key))


def _last(ticket: Ticket) -> str:
    text = ticket.messages[-1].content if ticket.messages else ""
    return text if len(text) <= 60 else f"{text[:59]}…"
