"""`guardrail demo`."""

from guardrail.cli.demo.command import register

__all__ = ["register"]
