"""`guardrail calibrate`."""

from guardrail.cli.calibrate.command import guardrail_cli

__all__ = ["guardrail_cli"]
