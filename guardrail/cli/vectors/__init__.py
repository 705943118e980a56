"""`guardrail vectors`."""

from guardrail.cli.vectors.command import register

__all__ = ["register"]
