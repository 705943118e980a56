"""Headers of a request that say who asks or what decides. Two servers in a row must not read two of them."""

from __future__ import annotations

from starlette.datastructures import Headers

from guardrail.serve.errors import ApiError


def single(headers: Headers, name: str) -> str | None:
    """The value of a header, if it is there. Raises ApiError for one that came with several values.

    A gateway may have added its own to that of its client, and only one of them would count.
    """
    values = set(headers.getlist(name))
    if len(values) > 1:
        text = f"The header '{name}' came {len(values)} times with different values; send it once."
        raise ApiError(400, text, code="invalid_value", param=name)
    return next(iter(values), None)


def listed(headers: Headers, name: str) -> list[str]:
    """The parts of a header that holds a list, between commas or in several lines, without empty ones."""
    parts = [part.strip() for value in headers.getlist(name) for part in value.split(",")]
    return [part for part in parts if part]
