"""Plans as bytes: how they travel to the workers, and what is known of a request with them.

MessagePack of plain values: classes by name, arrays as type, shape and bytes. Nothing that is read can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import msgspec
import numpy as np
from pydantic import BaseModel

from guardrail.errors import ModelError
from guardrail.policy.alarms import Drift
from guardrail.policy.decide_reply import Observed
from guardrail.policy.model import Defaults, Monitor, When
from guardrail.policy.plan import Plan
from guardrail.policy.rules import CompiledCondition, Rule
from guardrail.types import Facts, Probe, ProbeSite, Steering

T = TypeVar("T")
TYPES = (CompiledCondition, Defaults, Drift, Facts, Monitor, Observed, Plan, Probe, ProbeSite, Rule, Steering)
CLASSES: Mapping[str, type] = {one.__name__: one for one in (*TYPES, When)}
"""What may travel."""


def packed(plan: Plan) -> bytes:
    """The plan for a worker: without the configurations of actions, which only the guard needs."""
    return msgspec.msgpack.encode(
        plain(replace(plan, rules=_bare(plan.rules), reply_rules=_bare(plan.reply_rules)))
    )


def _bare(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(replace(rule, config=None) for rule in rules)


def unpacked(data: bytes) -> Plan:
    """The plan that `packed` was given. Raises ModelError for anything else."""
    try:
        return read(msgspec.msgpack.decode(data), Plan)
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"what was sent to the worker is not a plan: {error}") from error


def plain(value: Any) -> Any:
    """Values that MessagePack knows, for a value of one of the classes above."""
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, list(value.shape), value.tobytes()]}
    if isinstance(value, BaseModel):
        return {"is": type(value).__name__, "fields": value.model_dump(mode="json")}
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, "fields": _fields(value)}
    if isinstance(value, Mapping):
        return {"map": [[plain(key), plain(item)] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _fields(value: Any) -> dict[str, Any]:
    found = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Steering):
        found["directions"] = [plain(value.direction(i)) for i in range(len(value.layers))]
    return found


def read(value: Any, kind: type[T]) -> T:
    """The value that `plain` was given. Raises ValueError if it is not of this kind."""
    found = _read(value)
    if not isinstance(found, kind):
        raise ValueError(f"a {kind.__name__} was expected, and this is a {type(found).__name__}")
    return found


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        kind, shape, data = value["array"]
        return np.frombuffer(data, np.dtype(kind)).reshape(shape).copy()
    if "map" in value:
        return {_read(key): _read(item) for key, item in value["map"]}
    if "set" in value:
        return frozenset(value["set"])
    made = CLASSES[value["is"]]
    if issubclass(made, BaseModel):
        return made.model_validate(value["fields"])
    return made(**{name: _read(item) for name, item in value["fields"].items()})
