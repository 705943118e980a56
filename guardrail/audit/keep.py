"""How long records are kept: `6m` are six months of the calendar."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import datetime, timedelta

from guardrail.errors import ConfigError


def cutoff(keep: str, now: datetime) -> str:
    """The time from which on records are kept (ISO 8601). Raises ConfigError."""
    found = re.fullmatch(r"([1-9]\d{0,5})([dwmy])", keep)
    try:
        if found is None:
            raise ValueError
        return _before(now, int(found[1]), found[2]).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{keep!r} is not a time to keep records: write 90d, 12w, 6m (months) or 1y"
        ) from None


def _before(now: datetime, count: int, unit: str) -> datetime:
    if unit in "dw":
        return now - timedelta(days=count * (7 if unit == "w" else 1))
    months = now.year * 12 + now.month - 1 - count * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    # the 31st of a month that has 30 days is its last one
    return now.replace(year=year, month=month + 1, day=min(now.day, monthrange(year, month + 1)[1]))
