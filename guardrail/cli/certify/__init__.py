"""`guardrail certify`."""

from guardrail.cli.certify.command import guardrail_cli

__all__ = ["guardrail_cli"]
