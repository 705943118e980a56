"""`guardrail vectors`."""

from guardrail.cli.vectors.command import guardrail_cli

__all__ = ["guardrail_cli"]
