"""The pydantic models of a policy file. They know nothing about language models, files or vectors.

Every key is described in policies/README.md; `guardrail policy schema` prints the JSON Schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator

from guardrail.plugins.audit import AuditSettings
from guardrail.types import FailureAction, Mode, Stage

Fires: TypeAlias = Literal["above", "below"]
Identifier: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Share: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
T = TypeVar("T")
Many: TypeAlias = Annotated[tuple[T, ...], Field(strict=False)]
"""A YAML list. Without this, strict models would insist on a Python tuple."""
OnStale: TypeAlias = Literal["shadow", "escalate", "block"]
Milliseconds: TypeAlias = Annotated[int, Field(gt=0, le=3_600_000)]


class Model(BaseModel):
    """Strict and immutable: unknown keys are errors, and a loaded policy never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FprThreshold(Model):
    """The score that at most this share of benign prompts reaches."""

    fpr: Annotated[float, Field(gt=0.0, lt=1.0)]


class PercentileThreshold(Model):
    """A percentile of the benign scores, counted from the side that does not fire."""

    percentile: Annotated[float, Field(ge=0.0, le=100.0)]


class RawThreshold(Model):
    """A projection in the probe's own units; needs no calibration."""

    raw: float


Whole: TypeAlias = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
"""A whole number that every float can stand for."""
Threshold: TypeAlias = float | Whole | FprThreshold | PercentileThreshold | RawThreshold
Layer: TypeAlias = Annotated[int, Field(ge=1)] | Literal["auto"]


class Condition(Model):
    """Compares one trait at one layer with one threshold. Traits from scorer plugins take no layer."""

    trait: str
    layer: Layer = "auto"
    threshold: Threshold
    fires: Fires = "above"


class When(Model):
    """The requests that a policy applies to; all given conditions must hold."""

    tags: Many[str] = ()
    min_turns: Annotated[int, Field(ge=1)] = 1
    last_role: Literal["user", "assistant", "system", "tool"] | None = None


class Enforce(Model):
    """Staged rollout: the share of conversations (by hashed id) in which the policy is enforced."""

    share: Share = 1.0


class Monitor(Model):
    """How a response policy follows a reply.

    `mean` and `max` cover the last `window` tokens, `ema` moves by 2 / (`window` + 1). Every token is read;
    the verdict is checked every `every` tokens and at the end.
    """

    statistic: Literal["mean", "max", "ema"] = "mean"
    window: Annotated[int, Field(ge=1, le=1024)] = 16
    every: Annotated[int, Field(ge=1, le=1024)] = 4

    @property
    def key(self) -> str:
        """The name of this statistic in a calibration: `mean 16`. It does not depend on `every`."""
        return f"{self.statistic} {self.window}"


class Reference(Model):
    """Mean and standard deviation of a benign reply's mean projection, if no calibration gives them."""

    mean: float
    sd: Annotated[float, Field(gt=0.0)]


class Conversation(Model):
    """An alarm over a conversation: z is a reply's mean projection in benign standard deviations.

    `cusum` (Page 1954) fires if S = max(0, S + z - k) reaches h. `ewma` (Roberts 1959) fires if the average
    that gives each new reply `weight`, in its own standard deviations, reaches `limit`.
    """

    statistic: Literal["cusum", "ewma"] = "cusum"
    k: Annotated[float, Field(ge=0.0)] = 0.5
    h: Annotated[float, Field(gt=0.0)] = 5.0
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    limit: Annotated[float, Field(gt=0.0)] = 3.0
    reference: Reference | None = None

    @model_validator(mode="after")
    def _own_keys(self) -> Self:
        foreign = {"weight", "limit"} if self.statistic == "cusum" else {"k", "h"}
        if given := sorted(foreign & self.model_fields_set):
            raise ValueError(f"`{given[0]}` does not apply to `{self.statistic}`")
        return self

    @property
    def alarm(self) -> float:
        """The value at which the statistic fires."""
        return self.h if self.statistic == "cusum" else self.limit


class ActionUse(Model):
    """An action's name and configuration. The named action validates the configuration."""

    name: str
    config: dict[str, Any] = {}

    @model_serializer
    def _short(self) -> str | dict[str, Any]:
        return {self.name: self.config} if self.config else self.name


class Defaults(Model):
    """Settings for all policies that do not set their own."""

    mode: Mode = "enforce"
    on_error: FailureAction = "block"
    on_timeout: FailureAction | None = None
    timeout_ms: Milliseconds = 10_000
    on_truncate: Literal["error", "score_tail"] = "error"
    unsupported_input: FailureAction = "block"
    on_model_change: FailureAction = "block"
    on_stale: OnStale = "block"


class Policy(Model):
    """One rule: if its conditions hold, take its action."""

    id: Identifier
    trait: str | None = None
    layer: Layer = "auto"
    threshold: Threshold | None = None
    fires: Fires = "above"
    all_of: Many[Condition] = ()
    any_of: Many[Condition] = ()
    action: ActionUse
    message: str | None = None
    stage: Stage = "prompt"
    monitor: Monitor | None = None
    conversation: Conversation | None = None
    mode: Mode | None = None
    when: When = When()
    enforce: Enforce = Enforce()
    on_error: FailureAction | None = None
    on_timeout: FailureAction | None = None
    timeout_ms: Milliseconds | None = None
    on_truncate: Literal["error", "score_tail"] | None = None
    unsupported_input: FailureAction | None = None
    on_model_change: FailureAction | None = None
    on_stale: OnStale | None = None

    @field_validator("action", mode="before")
    @classmethod
    def _short_action(cls, value: object) -> object:
        """`block` and `{steer: {...}}` are short for `{name: ..., config: ...}`."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1:  # pyright: ignore[reportUnknownArgumentType]
            ((name, config),) = value.items()  # pyright: ignore[reportUnknownVariableType]
            if config is not None and not isinstance(config, dict):
                raise ValueError(f"the configuration of `{name}` must be a mapping of keys to values")
            return {"name": name, "config": config or {}}
        if isinstance(value, ActionUse):
            return value
        raise ValueError("must be an action name, or one action with its configuration: {steer: {...}}")

    @model_validator(mode="after")
    def _one_kind_of_condition(self) -> Self:
        kinds = [self.trait is not None, bool(self.all_of), bool(self.any_of)]
        if sum(kinds) != 1:
            raise ValueError("give exactly one of `trait`, `all_of` and `any_of`")
        if self.trait is not None and self.threshold is None and self.conversation is None:
            raise ValueError("`threshold` is missing")
        if self.conversation is not None and (self.trait is None or self.threshold is not None):
            raise ValueError("`conversation` needs a `trait` and replaces `threshold`")
        outer = self.threshold is not None or self.layer != "auto" or self.fires != "above"
        if self.trait is None and outer:
            raise ValueError("`layer`, `threshold` and `fires` belong inside the conditions")
        return self

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions, in whichever of the three ways they were written."""
        if self.trait is None:
            return self.all_of or self.any_of
        threshold = self.threshold
        if threshold is None:
            threshold = self.conversation.alarm if self.conversation else 0.0
        return (Condition(trait=self.trait, layer=self.layer, threshold=threshold, fires=self.fires),)


class PolicySet(Model):
    """A whole policy file. Immutable; reloading creates a new one."""

    version: Literal[1]
    vectors: str = "demo"
    calibration: str | None = None
    defaults: Defaults = Defaults()
    policies: Many[Policy] = ()
    allow_empty: bool = False
    allow_model_mismatch: bool = False
    require_certified: bool = False
    unguarded_calls: Literal["warn", "error"] = "warn"
    plugins: Many[str] = ()
    audit: AuditSettings = AuditSettings()

    @field_validator("version", mode="before")
    @classmethod
    def _a_number(cls, value: object) -> object:
        """`true` equals 1 in Python."""
        if isinstance(value, bool):
            raise ValueError("must be a number")
        return value

    def resolved(self, policy: Policy) -> Defaults:
        """The policy's own settings, with the file's defaults for the rest."""
        own = {
            name: getattr(policy, name) for name in Defaults.model_fields if getattr(policy, name) is not None
        }
        return self.defaults.model_copy(update=own)
