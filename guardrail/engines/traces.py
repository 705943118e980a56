"""The only `with` block of nnsight, and the only place that imports it.

The block is registered once, as an edit that calls a function of ours in step with whatever forward pass
runs; a look is then a plain call, without reading source or tracing lines anew. Only the blocks of the
model that are read or steered are wrapped, each as a leaf under a container of our own, and only while
something looks into them: between looks, and while an unsteered reply is decoded, every block has its own
`forward`. Compiled code cannot be looked into: a compiled model runs eagerly for as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from guardrail.engines.executor import Visit, hidden_of

T = TypeVar("T")

Place: TypeAlias = tuple[str, Literal["input", "output"]]
"""A module's name, and which side of it."""

Look: TypeAlias = Callable[[Any], None]
"""Runs beside a pass, in step with it. Called with nnsight's tracer."""

SLOTS = ("forward", "__nnsight__")


def import_nnsight() -> Any:
    """nnsight, without the `.save` that it mounts on every object of the process."""
    mounted = "nnsight" in sys.modules or hasattr(object(), "save")
    import nnsight

    if not mounted and hasattr(object(), "save"):
        from nnsight._c import unmount

        unmount("save")
    return nnsight


class _Done(Exception):
    """Ends an open loop of `steer` without nnsight's warning that the loop outran the run."""


class Traced:
    """A few modules under nnsight, by name; the executor that is the reference."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self._look: Look | None = None
        self._rewrap()

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        return self.look([(name, "output") for name in names], forward, lambda at, h: visit(at[0], h))

    def look(
        self, places: Sequence[Place], forward: Callable[[], T], visit: Callable[[Place, Tensor], bool]
    ) -> T | None:
        """As `observe`, for what goes into modules as well as what comes out of them."""

        def look(tracer: Any) -> None:
            for place in places:
                if visit(place, self._value(place)):
                    tracer.stop()

        return self._interleaved(look, forward) if places else forward()

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        result: list[T] = []

        def call() -> None:
            result.append(run())
            raise _Done

        def look(tracer: Any) -> None:
            for _step in tracer.iter[:]:
                for name in names:
                    visit(name, self._value((name, "output")))

        with suppress(_Done):
            self._interleaved(look, call)
        return result[0]

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """None: nnsight has to run what it looks into from the beginning."""
        return None

    def _value(self, place: Place) -> Tensor:
        """What stands at a place of the pass that runs; waits until the pass gets there."""
        name, side = place
        return hidden_of(getattr(getattr(self._wrapped, name), side))

    def _interleaved(self, look: Look, run: Callable[[], T]) -> T | None:
        """Run a function with a look beside it; None if the look stopped it."""
        with self._instrumented():
            self._look = look
            try:
                return self._wrapped.trace(trace=False, fn=run)
            finally:
                self._look = None

    def _looking(self, tracer: Any) -> None:
        if self._look is not None:
            self._look(tracer)

    @contextmanager
    def _instrumented(self) -> Generator[None]:
        """nnsight's `forward` on the modules, in code that runs eagerly; then their own again."""
        if self._slots() != self._own:
            self._rewrap()  # somebody has changed a `forward` since
        self._put(self._nnsights)
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self._put(self._own)

    def _rewrap(self) -> None:
        self._own = self._slots()
        self._wrapped = _wrap(self._modules, self._looking)
        self._nnsights = self._slots()
        self._put(self._own)

    def _slots(self) -> dict[str, dict[str, object]]:
        """What nnsight changes of each module, as it is now."""
        found = {name: module.__dict__ for name, module in self._modules.items()}
        return {name: {slot: own[slot] for slot in SLOTS if slot in own} for name, own in found.items()}

    def _put(self, slots: Mapping[str, Mapping[str, object]]) -> None:
        for name, module in self._modules.items():
            for slot in SLOTS:
                module.__dict__.pop(slot, None)
            module.__dict__.update(slots[name])


def _wrap(modules: Mapping[str, nn.Module], looking: Look) -> Any:
    """The modules under nnsight, with `looking` beside every pass that runs through it."""
    nnsight = import_nnsight()

    class Leaf(nnsight.Envoy):
        """An envoy that does not look below its module."""

        def _add_envoy(self, name: str, module: nn.Module) -> None:
            return None

    container = nn.Module()
    for name, module in modules.items():
        container.add_module(name, module)
    wrapped = nnsight.NNsight(container, envoys=Leaf)
    with wrapped.edit(inplace=True) as tracer:
        looking(tracer)
    return wrapped
