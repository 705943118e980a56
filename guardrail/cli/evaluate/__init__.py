"""`guardrail evaluate`."""

from guardrail.cli.evaluate.command import register

__all__ = ["register"]
