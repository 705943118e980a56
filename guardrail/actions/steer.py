"""The action `steer`: the model answers with its activations changed along the policy's trait.

`add` (Chen et al. 2025), `ablate` (Arditi et al. 2024) and `cap` (the Assistant Axis, 2026). See
`guardrail.types.Steering` for the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, Field, field_validator, model_validator

from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.protocols import Action, ActionConfig, ActionContext, Otherwise
from guardrail.types import FailureAction, Operator, SteerSpec

Layer: TypeAlias = Annotated[int, Field(ge=1)]
Layers: TypeAlias = Layer | Annotated[tuple[Layer, ...], Field(min_length=1, strict=False)]


class Percentile(ActionConfig):
    """A percentile of the projections of benign text."""

    percentile: Annotated[float, Field(ge=0.0, le=100.0)]


class SteerConfig(ActionConfig):
    """`at` belongs to `cap`; `coefficient` and `amplify` belong to `add`.

    `layers` defaults to the policy's own layer; `incremental` spreads the vector over all layers.
    `recheck` scores again at a later layer; `otherwise` takes over if the policy still fires there.
    """

    operator: Operator
    coefficient: float | None = None
    at: float | Percentile | None = None
    layers: Layers | Literal["all", "incremental"] | None = None
    amplify: bool = False
    recheck: bool = False
    otherwise: FailureAction = "block"

    @field_validator("operator", mode="before")
    @classmethod
    def _known_operator(cls, value: Any) -> Any:
        if value not in get_args(Operator):
            raise ValueError("must be `add`, `ablate` or `cap`")
        return value

    @field_validator("at", mode="before")
    @classmethod
    def _readable_limit(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number or value is None or isinstance(value, dict | Percentile):
            return value
        raise ValueError("must be a projection (a number) or {percentile: ...}")

    @field_validator("layers", mode="before")
    @classmethod
    def _readable_layers(cls, value: Any) -> Any:
        rows = list(value) if isinstance(value, list | tuple) else [value]  # pyright: ignore[reportUnknownArgumentType]
        whole = rows and all(isinstance(row, int) and not isinstance(row, bool) and row >= 1 for row in rows)
        if whole or value is None or value in ("all", "incremental"):
            return value
        raise ValueError("must be a layer (1 or more), a list of layers, `all` or `incremental`")

    @model_validator(mode="after")
    def _fits_the_operator(self) -> Self:
        if problems := [text for wrong, text in self._rules() if wrong]:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> Sequence[tuple[bool, str]]:
        add, cap = self.operator == "add", self.operator == "cap"
        positive = self.coefficient is not None and self.coefficient > 0
        return (
            (add and self.coefficient is None, "`add` needs a `coefficient`; a negative one suppresses"),
            (add and self.coefficient == 0, "a `coefficient` of 0 has no effect"),
            (add and positive and not self.amplify, "a positive `coefficient` needs `amplify: true`"),
            (not add and self.coefficient is not None, f"`{self.operator}` takes no `coefficient`"),
            (self.amplify and not (add and positive), "`amplify` needs `add` with a positive `coefficient`"),
            (cap and self.at is None, "`cap` needs `at`: a projection or {percentile: ...}"),
            (not cap and self.at is not None, f"`{self.operator}` takes no `at`"),
            (not add and self.layers == "incremental", f"`{self.operator}` cannot be `incremental`"),
        )


class Steer:
    """The weakest action. The engine does the steering, so the action itself has nothing to answer."""

    name = "steer"
    strength = 10
    Config: ClassVar[type[BaseModel]] = SteerConfig

    def compile(self, config: SteerConfig) -> SteerSpec:
        """The requested change. The plan turns it into numbers with the vectors and the calibration."""
        return SteerSpec(
            operator=config.operator,
            layers=(config.layers,) if isinstance(config.layers, int) else config.layers,
            coefficient=config.coefficient or 0.0,
            limit=None if isinstance(config.at, Percentile) else config.at,
            percentile=config.at.percentile if isinstance(config.at, Percentile) else None,
            recheck=config.recheck,
            otherwise=config.otherwise,
        )

    def respond(self, config: SteerConfig, context: ActionContext) -> Otherwise:
        """Only called if nothing could be steered."""
        return Otherwise(config.otherwise)


@hookimpl
def guardrail_actions() -> Sequence[Action]:
    """`steer`."""
    return [Steer()]
