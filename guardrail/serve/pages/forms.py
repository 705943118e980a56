"""What a browser sends with a form."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from guardrail.serve.errors import ApiError

KIND = "application/x-www-form-urlencoded"
MAX_FIELDS = 100
FOREIGN = ("cross-site", "same-site")
"""What browsers say in `Sec-Fetch-Site` of requests that another site makes."""


async def fields_of(request: Request) -> Mapping[str, str]:
    """The fields of a form, each once, with plain line ends. Raises ApiError for anything else."""
    _check_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != KIND:
        raise ApiError(415, f"Send the form as {KIND}.", code="unsupported_content_type")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise ApiError(400, "The form could not be read.", code="invalid_form") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ApiError(400, "The form names a field twice.", code="invalid_form")
    return {name: value.replace("\r\n", "\n") for name, value in found.items()}


def _check_origin(request: Request) -> None:
    """Browsers say who made a request; others say nothing, and have no cookies of anybody."""
    if request.headers.get("sec-fetch-site", "").lower() in FOREIGN:
        raise ApiError(403, "This form was sent by another site.", code="form_not_valid")
