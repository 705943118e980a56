"""`guardrail train`."""

from guardrail.cli.train.command import guardrail_cli

__all__ = ["guardrail_cli"]
