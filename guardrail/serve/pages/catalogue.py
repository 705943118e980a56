"""The pages in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.serve.pages import dashboard, look, review
from guardrail.serve.pages.site import Page

PAGES: Sequence[Page] = (dashboard.PAGE, review.PAGE, look.PAGE)
