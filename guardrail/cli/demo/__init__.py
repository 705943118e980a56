"""`guardrail demo`."""

from guardrail.cli.demo.command import guardrail_cli

__all__ = ["guardrail_cli"]
