"""`guardrail interpret`."""

from guardrail.cli.interpret.command import guardrail_cli

__all__ = ["guardrail_cli"]
