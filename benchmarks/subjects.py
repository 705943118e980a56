"""The models that are measured, each with a second one, built alike, that is never wrapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from guardrail.bench.cases import endless, inputs
from guardrail.bench.goals import Goal
from guardrail.testing import tiny_model, tiny_tokenizer

SLACK = 0.01
"""A row passes if the upper end of its interval is at most this much above the goal."""


def at_most(value: float, added_ms: float | None = None) -> Goal:
    """A goal for a ratio, and for the milliseconds added."""
    return Goal(value=value, slack=SLACK, added_ms=added_ms)


ALLOW = {"allow": at_most(1.005), "allow, by hooks alone": at_most(1.005)}
STEER = {"steer one layer": at_most(1.02), "steer one layer, by hooks alone": at_most(1.02)}
BLOCK = {"block at the middle": at_most(0.60)}
FOLLOWED = {"response stage, every token": at_most(1.02)}
FIRST = {
    "allow, first token": at_most(1.05, added_ms=0.5),
    "allow, first token, by hooks alone": at_most(1.05, added_ms=0.5),
}
UNCHANGED = Goal(kind="within", value=1.0)
LAUNCH_BOUND = partial(tiny_model, "llama", layers=12, d_model=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to be guarded, its bare twin, a prompt, and what the plans look at."""

    name: str
    model: Any
    bare: Any
    tokenizer: Any
    inputs: dict[str, Tensor]
    new_tokens: int
    layers: tuple[int, ...]
    """The layers that are read, ascending; the last is the middle of the model."""
    policies: int
    goals: Mapping[str, Goal]
    """Goals by case; cases without a goal are shown but not judged."""

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def depth(self) -> int:
        """The number of decoder blocks."""
        return int(self.model.config.num_hidden_layers)


def launch_bound() -> Subject:
    """12 x 64: nearly all the time is Python's, as in eager decoding on a GPU. The worst case of a guard."""
    return subject("12 x 64", LAUNCH_BOUND, tiny_tokenizer(), prompt=32, new_tokens=32, goals=ALLOW | STEER)


def compute_bound() -> Subject:
    """12 x 768: nearly all the time is arithmetic."""
    sizes = {"intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 12}
    build = partial(tiny_model, "llama", layers=12, d_model=768, initializer_range=0.02, **sizes)
    return subject("12 x 768", build, tiny_tokenizer(), prompt=64, new_tokens=8, goals=BLOCK | FOLLOWED)


def demo() -> Subject:
    """The built-in model."""
    from guardrail.engines.transformers.pretrained import load_pretrained

    def build() -> Any:
        return load_pretrained("demo", {})[0]

    return subject("demo", build, load_pretrained("demo", {})[1], prompt=32, new_tokens=32, goals=FIRST)


def subject(
    name: str,
    build: Callable[[], Any],
    tokenizer: Any,
    prompt: int,
    new_tokens: int,
    layers: tuple[int, ...] = (),
    policies: int = 1,
    goals: Mapping[str, Goal] | None = None,
) -> Subject:
    """Build the model twice and make up a prompt.

    Not `deepcopy`: on a launch-bound model a copy's modules are a percent slower than those that were built.
    """
    model, bare = endless(build()), endless(build())
    return Subject(
        name=name,
        model=model,
        bare=bare,
        tokenizer=tokenizer,
        inputs=inputs(bare, prompt),
        new_tokens=new_tokens,
        layers=layers or (model.config.num_hidden_layers // 2,),
        policies=policies,
        goals={"after close": UNCHANGED, **(goals or {})},
    )
