"""`guardrail bench`."""

from guardrail.cli.bench.command import guardrail_cli

__all__ = ["guardrail_cli"]
