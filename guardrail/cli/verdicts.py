"""How decisions are shown: score bars, and one sentence that gives the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from guardrail.types.figures import told_apart

if TYPE_CHECKING:
    from guardrail.types import Decision, Score

BAR = 30
MARK = 10
"""Column of the threshold in every bar. A full bar is three times the threshold."""
VERDICTS = {
    "allow": ("allowed", "green"),
    "steer": ("steered", "yellow"),
    "rephrase": ("rephrased", "cyan"),
    "escalate": ("escalated", "magenta"),
    "block": ("blocked", "red"),
}
FORESEEN = VERDICTS | {
    "steer": ("would be steered", "yellow"),
    "rephrase": ("would be rephrased", "cyan"),
    "escalate": ("would be escalated", "magenta"),
}
"""What a decision leads to if only decisions are asked for: nothing has been done yet."""


def is_finding(decision: Decision) -> bool:
    """Whether an enforced policy fired, or an error keeps the model from simply answering."""
    enforced = {score.policy for score in decision.scores if score.mode == "enforce"}
    return decision.action != "allow" or not enforced.isdisjoint(decision.fired)


def verdict(decision: Decision, words: Mapping[str, tuple[str, str]] = VERDICTS) -> Text:
    """The action, in its colour."""
    word, style = words.get(decision.action, (decision.action, "red"))
    if decision.status != "evaluated":
        word = f"{word} ({decision.status.replace('_', ' ')})"
        style = "bright_black" if decision.action == "allow" else style
    return Text(word, f"bold {style}")


def reason(decision: Decision) -> str:
    """One sentence that gives the reason."""
    if decision.error:
        return decision.error
    if decision.status == "not_evaluated":
        return (
            "no policy applies to this prompt"
            if decision.stage == "prompt"
            else "no token of the reply was read"
        )
    if decision.policy:
        where = f" (reply token {decision.token})" if decision.token is not None else ""
        return f"{decision.policy}: {_scored(decision, decision.policy)}{where}"
    if decision.action != "allow":
        return "; ".join(decision.warnings) or "a plugin decided"
    shadows = [f"{policy}: {_scored(decision, policy)}" for policy in decision.fired]
    if shadows:
        word = VERDICTS.get(decision.would_action, (decision.would_action, ""))[0]
        return f"in shadow mode; if enforced, it would be {word}: {'; '.join(shadows)}"
    return "no score reached its threshold"


def _scored(decision: Decision, policy: str) -> str:
    found = [score for score in decision.scores if score.policy == policy and score.fired]
    return " and ".join(map(_against, found)) or "decided without a score"


def _against(score: Score) -> str:
    where = f" at layer {score.layer}" if score.layer is not None else ""
    value, threshold = told_apart(score.score, score.threshold)
    return f"{score.trait} scored {value}{where}, threshold {threshold}"


def bars(decision: Decision) -> Table:
    """One bar per score, with a mark at the threshold. Fired bars are coloured."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("left", "left", "left", "right", "right", "left"):
        # rich takes the width of a column without any text from its neighbours, and bars would wrap
        table.add_column(justify=column, overflow="fold", min_width=1)  # pyright: ignore[reportArgumentType]
    for score in decision.scores:
        table.add_row(*_cells(score))
    return table


def _cells(score: Score) -> Sequence[Text]:
    state = ("fired" if score.fired else "") + (f" ({score.mode})" if score.mode != "enforce" else "")
    style = _style(score)
    value, threshold = told_apart(score.score, score.threshold)
    return (
        Text(score.policy),
        Text(score.trait, "bright_black"),
        bar(score),
        Text(value, style if score.fired else ""),
        Text(f"/ {threshold}", "bright_black"),
        Text(state.strip(), style),
    )


def _style(score: Score) -> str:
    return "green" if not score.fired else "bold red" if score.mode == "enforce" else "bold yellow"


def bar(score: Score) -> Text:
    """The score, scaled so that the threshold is at `MARK`, and cut off at both ends."""
    unit = MARK / max(abs(score.threshold), 1e-6)
    filled = min(BAR, max(0, round(MARK + (score.score - score.threshold) * unit)))
    text = Text.assemble(("━" * filled, _style(score)), ("─" * (BAR - filled), "bright_black dim"))
    return Text.assemble(text[:MARK], ("┃", "bold"), text[MARK + 1 :])


def notes(decision: Decision, known: Sequence[str] = ()) -> list[str]:
    """The warnings about this prompt. `known` warnings were shown when the policies were loaded."""
    return [f"warning: {warning}" for warning in decision.warnings if warning not in known]


def plain(text: str) -> str:
    """The text without characters that move a terminal's cursor or cannot be encoded."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def short(text: str, width: int) -> str:
    """The text on one line of at most `width` characters."""
    line = " ".join(plain(text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
