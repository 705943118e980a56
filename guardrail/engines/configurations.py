"""What an engine says about how it runs its model. Certificates are about one such configuration."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, runtime_checkable

from guardrail.engines import Engine
from guardrail.types import Configuration


@runtime_checkable
class ConfiguredEngine(Protocol):
    """An engine that says how it runs its model."""

    @property
    def configuration(self) -> Configuration: ...


def configuration(engine: Engine) -> Configuration:
    """How an engine runs its model. Of one that does not say, only its type and chat template are known."""
    if isinstance(engine, ConfiguredEngine):
        return engine.configuration
    return Configuration(engine=type(engine).__name__, chat_template=engine.fingerprint.chat_template)


def releases(*packages: str) -> tuple[str, ...]:
    """`name 1.2.3` of the packages that are installed."""
    found: list[str] = []
    for package in packages:
        try:
            found.append(f"{package} {version(package).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return tuple(found)
