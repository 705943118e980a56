"""What is patched: which values, in which layers, at which tokens; and the sweeps made of such patches."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from guardrail.engines.transformers.activations import COMPONENTS, Component, Site
from guardrail.interpret.patching.pairs import Pair

Sweep: TypeAlias = Literal["scopes", "positions", "windows", "heads", "direct"]
SWEEPS: tuple[Sweep, ...] = ("scopes", "positions", "windows", "heads", "direct")
SCOPES = ("identity", "all", "others")
"""The identity's tokens, all tokens, and all but the identity's."""
PARTS: tuple[Component, ...] = ("mlp", "attn")


@dataclass(frozen=True, slots=True)
class Patch:
    """Values of one run put into the other: those of a component in these layers, at these tokens.

    where: a scope, `last`, `+k` (k tokens after the identity), `-k` (k before the last one) or `rest`.
    head: only this head of `heads`, from 0. direct: everything above keeps what it put out at the last
    token, so that only what the component itself adds there reaches the logits.
    """

    layers: tuple[int, ...]
    component: Component
    where: str
    head: int | None = None
    direct: bool = False

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where values are put."""
        return tuple(Site(layer, self.component) for layer in self.layers)

    def frozen(self, layers: int) -> Iterator[Site]:
        """The outputs behind a direct patch, in a model of so many layers."""
        if not self.direct:
            return
        last, after = self.layers[-1], COMPONENTS.index(self.component)
        yield from (Site(last, part) for part in COMPONENTS[after + 1 : -1] if self._follows(part))
        yield from (Site(layer, part) for layer in range(last + 1, layers + 1) for part in PARTS)

    def _follows(self, part: Component) -> bool:
        # what a head puts out is part of the attention's output
        return not (self.component == "heads" and part == "attn")


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model sweeps go over. `heads`: 0 if its heads cannot be told apart."""

    layers: int
    heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """Which sweeps are made. near: single tokens after the identity and before the end. window: layers.

    head_tokens: where heads are patched; those at the last token cost much less than those at all.
    """

    sweeps: tuple[Sweep, ...] = SWEEPS
    near: int = 3
    window: int = 4
    head_tokens: tuple[str, ...] = ("last", "all")


def columns(where: str, pair: Pair, near: int) -> list[int]:
    """The tokens of a pair that `where` names; none if this pair has no such token.

    Tokens before the identity are the same in both runs, so nothing is put there.
    """
    (start, end), tokens = pair.span, pair.tokens
    identity, after = list(range(start, end)), list(range(end, tokens - 1))
    ahead = after[:near]
    behind = after[near:][-near:] if near else []
    named = {
        "identity": identity,
        "all": list(range(start, tokens)),
        "others": list(range(end, tokens)),
        "last": [tokens - 1],
        "rest": after[len(ahead) : len(after) - len(behind)],
    }
    named |= {f"+{i}": [column] for i, column in enumerate(ahead, 1)}
    named |= {f"-{i}": [column] for i, column in enumerate(reversed(behind), 1)}
    return named.get(where, [])


def positions(near: int) -> tuple[str, ...]:
    """The tokens of a sweep over positions, from the identity to the last one."""
    ahead = tuple(f"+{i}" for i in range(1, near + 1))
    return ("identity", *ahead, "rest", *(f"-{i}" for i in range(near, 0, -1)), "last")


def patches(shape: Shape, settings: SweepSettings) -> list[Patch]:
    """The patches of the sweeps, each once."""
    made = (patch for sweep in settings.sweeps for patch in _sweep(sweep, shape, settings))
    return list(dict.fromkeys(made))


def _sweep(sweep: Sweep, shape: Shape, settings: SweepSettings) -> Iterator[Patch]:
    if sweep == "scopes":
        yield from _grid(shape, SCOPES)
    elif sweep == "positions":
        yield from _grid(shape, positions(settings.near))
    elif sweep == "windows":
        yield from _windows(shape, settings.window)
    elif sweep == "heads":
        yield from _heads(shape, settings.head_tokens)
    else:
        yield from _direct(shape)


def _grid(shape: Shape, where: Collection[str]) -> Iterator[Patch]:
    for component in ("resid", *PARTS):
        for layer in range(0 if component == "resid" else 1, shape.layers + 1):
            yield from (Patch((layer,), component, one) for one in where)


def _windows(shape: Shape, width: int) -> Iterator[Patch]:
    for first in range(1, shape.layers - width + 2):
        layers = tuple(range(first, first + width))
        yield from (Patch(layers, part, where) for part in PARTS for where in ("identity", "all"))


def _heads(shape: Shape, tokens: Collection[str]) -> Iterator[Patch]:
    for layer in range(1, shape.layers + 1):
        for head in range(shape.heads):
            yield from (Patch((layer,), "heads", where, head) for where in tokens)


def _direct(shape: Shape) -> Iterator[Patch]:
    for part in PARTS:
        for layer in range(1, shape.layers + 1):
            # values at other tokens reach the logits only through attention, which is held
            yield Patch((layer,), part, "last", direct=True)
            yield Patch((layer,), part, "all")
