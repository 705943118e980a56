"""How decisions are shown: the JSON of `check`, score bars, and one sentence on what was decided and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from guardrail.files.records import SCORE_FIELDS, Json, pick

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from guardrail.types import Decision, Reply, Score, Timing

BAR = 30
MARK = 10
"""The threshold's column, the same in every bar: a full bar is three times the threshold."""
BEFORE = ("status", "action", "would_action", "policy")
AFTER = ("fail_open", "warnings", "error")
VERDICTS = {
    "allow": ("allowed", "green"),
    "steer": ("steered", "yellow"),
    "rephrase": ("rephrased", "cyan"),
    "escalate": ("escalated", "magenta"),
    "block": ("blocked", "red"),
}


def decision_row(decision: Decision, audit_id: str | None, timing: Timing | None) -> Json:
    """The stable JSON of one decision. `latency_ms` is that of the batch the prompt was decided in."""
    latency = timing and {"guard": round(timing.guard, 4), "prefill": round(timing.prefill, 4)}
    return {
        **pick(decision, BEFORE),
        "scores": [pick(score, SCORE_FIELDS) for score in decision.scores],
        **pick(decision, ("policy_sha256", "vectors_sha256")),
        "audit_id": audit_id,
        **pick(decision, AFTER),
        "latency_ms": latency,
    }


def decision_rows(reply: Reply) -> list[Json]:
    """The decisions behind one reply; only the last one's latency is known.

    The last one holds the decision on the reply under `response`, null where no policy followed it.
    """
    earlier = [decision_row(decision, reply.audit_id, None) for decision in reply.earlier]
    last = decision_row(reply.decision, reply.audit_id, reply.timing)
    return [*earlier, {**last, "reply_decision": response_row(reply.reply_decision)}]


def response_row(response: Decision | None) -> Json | None:
    """The JSON of a decision on a reply: as that of a prompt, and the reply token at which a policy fired."""
    return response and {**decision_row(response, None, None), "token": response.token}


def is_finding(decision: Decision) -> bool:
    """Whether the model may not simply answer: an enforced policy fired, or an error is no pass."""
    enforced = {score.policy for score in decision.scores if score.mode == "enforce"}
    return decision.action != "allow" or not enforced.isdisjoint(decision.fired)


def verdict(decision: Decision) -> Text:
    """What was done, in its colour."""
    from rich.text import Text

    word, style = VERDICTS.get(decision.action, (decision.action, "red"))
    if decision.status != "evaluated":
        word = f"{word} ({decision.status.replace('_', ' ')})"
        style = "bright_black" if decision.action == "allow" else style
    return Text(word, f"bold {style}")


def reason(decision: Decision) -> str:
    """One sentence on why."""
    if decision.error:
        return decision.error
    if decision.status == "not_evaluated":
        return (
            "no policy is about this prompt"
            if decision.stage == "prompt"
            else "nothing of the reply was read"
        )
    if decision.policy:
        where = f" (reply token {decision.token})" if decision.token is not None else ""
        return f"{decision.policy}: {_scored(decision, decision.policy)}{where}"
    if decision.action != "allow":
        return "; ".join(decision.warnings) or "a plugin decided"
    shadows = [f"{policy}: {_scored(decision, policy)}" for policy in decision.fired]
    if shadows:
        word = VERDICTS.get(decision.would_action, (decision.would_action, ""))[0]
        return f"only watched (shadow), enforced it would be {word}: {'; '.join(shadows)}"
    return "no score reached its threshold"


def _scored(decision: Decision, policy: str) -> str:
    found = [score for score in decision.scores if score.policy == policy and score.fired]
    return " and ".join(map(_against, found)) or "decided without a score"


def _against(score: Score) -> str:
    where = f" at layer {score.layer}" if score.layer is not None else ""
    return f"{score.trait} scored {score.score:.2f}{where}, threshold {score.threshold:.2f}"


def bars(decision: Decision) -> Table:
    """One bar for each score; the mark in it is the threshold. Fired bars are coloured."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("left", "left", "left", "right", "right", "left"):
        table.add_column(justify=column, no_wrap=True)  # pyright: ignore[reportArgumentType]
    for score in decision.scores:
        table.add_row(*_cells(score))
    return table


def _cells(score: Score) -> Sequence[Text]:
    from rich.text import Text

    state = ("fired" if score.fired else "") + (f" ({score.mode})" if score.mode != "enforce" else "")
    style = _style(score)
    return (
        Text(score.policy),
        Text(score.trait, "bright_black"),
        bar(score),
        Text(f"{score.score:.2f}", style if score.fired else ""),
        Text(f"/ {score.threshold:.2f}", "bright_black"),
        Text(state.strip(), style),
    )


def _style(score: Score) -> str:
    return "green" if not score.fired else "bold red" if score.mode == "enforce" else "bold yellow"


def bar(score: Score) -> Text:
    """The score, in units in which the threshold is at `MARK`; cut off at both ends."""
    from rich.text import Text

    unit = MARK / max(abs(score.threshold), 1e-6)
    filled = min(BAR, max(0, round(MARK + (score.score - score.threshold) * unit)))
    text = Text.assemble(("━" * filled, _style(score)), ("─" * (BAR - filled), "bright_black dim"))
    return Text.assemble(text[:MARK], ("┃", "bold"), text[MARK + 1 :])


def notes(decision: Decision, known: Sequence[str] = ()) -> list[str]:
    """The warnings that are about this prompt; `known` were said when the policies were loaded."""
    return [f"warning: {warning}" for warning in decision.warnings if warning not in known]


def plain(text: str) -> str:
    """Without what could move a terminal's cursor or cannot be encoded."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(text: str, width: int) -> str:
    """One line of it."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
