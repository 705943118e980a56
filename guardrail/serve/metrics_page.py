"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from guardrail.serve.errors import ApiError
from guardrail.serve.metrics import Metrics
from guardrail.serve.service import Service


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["operations"])
    metrics = Metrics.of(service.guard)

    @routes.get("/metrics", response_class=Response)
    def read(request: Request) -> Response:
        """All metrics in Prometheus' text format."""
        if not service.settings.open_metrics:
            service.check_right(request, "metrics")
        if metrics is None:
            raise ApiError(404, "this guard counts nothing; make it with `plugins=[Metrics()]`")
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes
