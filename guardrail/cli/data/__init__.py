"""`guardrail data`: training data, before it is trained on."""

from guardrail.cli.data.command import guardrail_cli

__all__ = ["guardrail_cli"]
