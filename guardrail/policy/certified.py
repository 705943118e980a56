"""Whether the calibration of a policy file is certified for how the model is run."""

from __future__ import annotations

from datetime import UTC, datetime

from guardrail.calibration.certificates import Certificate
from guardrail.calibration.values import Calibration
from guardrail.types import Configuration

REMEDY = (
    "run it as it was calibrated, calibrate it as it is run (`--dtype` and the like), or compare the two "
    "with `guardrail certify`"
)


def uncertified(calibration: Calibration | None, running: Configuration | None) -> str | None:
    """Why no certificate covers this configuration; None if one does, or if it is not known how it is run.

    A calibration without certificates is from before there were any, or from others: nothing is known of it.
    """
    if calibration is None:
        return "there is no calibration to be certified"
    if not calibration.certificates:
        return "the calibration has no certificate; make one with `guardrail certify`"
    if running is None or calibration.certificate(running):
        return None
    nearest = min(_distances(calibration.certificates, running), key=len)
    return f"the calibration is not certified for how this model is run ({'; '.join(nearest)}); {REMEDY}"


def _distances(known: tuple[Certificate, ...], running: Configuration) -> list[tuple[str, ...]]:
    return [one.configuration.differences(running) for one in known]


def stale_at_load(certificate: Certificate | None) -> str | None:
    """The warning for a certificate that is stale already, or never was anything else."""
    reason = certificate and certificate.stale(datetime.now(UTC))
    return f"{reason}; `on_stale` decides about every prompt, until it is renewed" if reason else None
