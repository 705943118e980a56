"""What a gate found, in words: first whether the finetune may ship, then what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from guardrail.statistics.intervals import Estimate
from guardrail.train.gate.verdicts import Verdict

WORST = 5
"""How many exceeded limits are put into words."""


def conclusion(found: Sequence[Verdict]) -> str:
    """One sentence for whoever decides."""
    if not found:
        return "This finetune may not ship yet: no limit was measured."
    counts = Counter(one.outcome for one in found)
    total = _limits(len(found))
    if failed := counts["failed"]:
        return f"This finetune must not ship: {failed} of {total} {_are(failed)} exceeded."
    if missed := len(found) - counts["passed"]:
        why = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if outcome != "passed")
        return f"This finetune may not ship yet: {missed} of {total} were not shown to hold ({why})."
    return f"This finetune may ship: every limit ({len(found)}) is shown to hold."


def exceeded(found: Sequence[Verdict]) -> list[str]:
    """A line for each of the limits that were exceeded most."""
    failed = [one for one in found if one.outcome == "failed"]
    failed.sort(key=lambda one: one.of_limit.value if one.of_limit else 0.0, reverse=True)
    lines = [_line(one) for one in failed[:WORST]]
    more = len(failed) - len(lines)
    return [*lines, f"And {_limits(more)} more."] if more else lines


def _line(one: Verdict) -> str:
    times = f", {one.of_limit.value:.1f} times that" if one.of_limit else ""
    return f"{one.what} ({one.condition}): {one.limit} is allowed, and it is {shown(one.found)}{times}."


def rows_aside(what: str, kinds: Mapping[str, int], first: int) -> list[str]:
    """A sentence on the rows that were set aside, none without any. `first`: the number of the first."""
    if not kinds:
        return []
    said = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return [f"{what}: {_rows(sum(kinds.values()))} set aside ({said}); the first is row {first}"]


def shown(value: Estimate | None) -> str:
    """A change with its interval; empty if there is none."""
    return "" if value is None else f"{value:+.3g}"


def _limits(count: int) -> str:
    return f"{count} limit{'s' * (count != 1)}"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
