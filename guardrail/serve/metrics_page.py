"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from guardrail.serve.errors import ApiError
from guardrail.serve.gauges import ServerState
from guardrail.serve.health import ready
from guardrail.serve.metrics import Metrics
from guardrail.serve.service import Service


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["operations"])
    metrics = Metrics.of(service.guard)
    if metrics is not None and metrics.state is not None:
        metrics.state.server = lambda: _state(service)

    @routes.get("/metrics", response_class=Response)
    async def read(request: Request) -> Response:
        """All metrics in Prometheus' text format."""
        if not service.settings.open_metrics:
            service.check_right(request, "metrics")
        if metrics is None:
            raise ApiError(404, "this guard counts nothing; make it with `plugins=[Metrics()]`")
        service.warm_up.look()
        text = await asyncio.to_thread(metrics.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return routes


def _state(service: Service) -> ServerState:
    delivery = service.delivery
    return ServerState(
        keys_failing=service.keys.error is not None,
        ready=ready(service).ready,
        inside=delivery.inside,
        room=delivery.room,
        rejected=delivery.rejected,
    )
