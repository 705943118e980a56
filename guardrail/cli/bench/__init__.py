"""`guardrail bench`."""

from guardrail.cli.bench.command import register

__all__ = ["register"]
