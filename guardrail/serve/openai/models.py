"""`/v1/models`: the model under each of its names."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from guardrail.serve.service import Service


class Model(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "guardrail"


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def models() -> ModelList:
        names = service.settings.names
        return ModelList(data=[Model(id=name, created=service.started) for name in names])

    # ids of the hub have a slash
    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> Model:
        service.check_model(name)
        return Model(id=name, created=service.started)

    return routes
