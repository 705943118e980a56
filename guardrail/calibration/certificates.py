"""Certificates: under which configurations a calibration was shown to hold, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from guardrail.errors import CalibrationError
from guardrail.types import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A calibration holds under this configuration: it was measured there, or compared there and passed.

    `prompts` counts the benign prompts behind that, `policies` names those that were compared (none if it is
    where the calibration was made). It is stale `max_age_days` after `created` (UTC, ISO 8601), and while
    `drift`, the largest Kolmogorov-Smirnov distance between live and benign scores, is above `max_drift`.
    """

    configuration: Configuration
    created: str
    prompts: int
    policies: tuple[str, ...] = ()
    max_age_days: float | None = None
    max_drift: float | None = None
    drift: float | None = None
    """What `guardrail calibrate drift --record` found last."""

    def __post_init__(self) -> None:
        try:
            _ = self.expires
        except (ValueError, OverflowError) as error:
            raise CalibrationError(f"a certificate has dates that cannot be read: {error}") from error

    @property
    def expires(self) -> datetime | None:
        """When it becomes stale; None for never."""
        if self.max_age_days is None:
            return None
        made = datetime.fromisoformat(self.created)
        # a time without a zone is one of a file that somebody has edited
        return (made if made.tzinfo else made.replace(tzinfo=UTC)) + timedelta(days=self.max_age_days)

    def stale(self, now: datetime) -> str | None:
        """Why it no longer counts at this time, in words; None if it does."""
        if self.expires is not None and now >= self.expires:
            return f"the calibration's certificate expired on {self.expires:%Y-%m-%d}"
        if self.max_drift is not None and self.drift is not None and self.drift > self.max_drift:
            return (
                f"live scores have drifted by {self.drift:.2f} from the calibration, and its certificate "
                f"allows {self.max_drift:g}"
            )
        return None
