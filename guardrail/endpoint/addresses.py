"""Checks of what policy files say about other services. Imports no HTTP client."""

from __future__ import annotations

import os
from urllib.parse import urlsplit


def http_address(value: str) -> str:
    """The address. Raises ValueError unless it is an HTTP address without credentials."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write an http:// or https:// address")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong in a policy file; name an environment variable")
    return value


def variable_that_is_set(name: str) -> str:
    """The name of an environment variable. Raises ValueError if it is not set."""
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return name
