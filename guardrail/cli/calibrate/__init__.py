"""`guardrail calibrate`."""

from guardrail.cli.calibrate.command import register

__all__ = ["register"]
