"""`guardrail evaluate`."""

from guardrail.cli.evaluate.command import guardrail_cli

__all__ = ["guardrail_cli"]
