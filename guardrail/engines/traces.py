"""The only `with` blocks of nnsight, and the only place that imports it.

nnsight reads this file's source: each block's body stands on its own lines. Only the blocks that are read
or steered are wrapped, each as a leaf under a container of our own, and only while something looks into them:
between looks, and while an unsteered reply is decoded, every block has its own `forward`. Compiled code
cannot be looked into: a compiled model runs eagerly for as long.
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
        self._rewrap()

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        return self.look([(name, "output") for name in names], forward, lambda at, h: visit(at[0], h))

    def look(
        self, places: Sequence[Place], forward: Callable[[], T], visit: Callable[[Place, Tensor], bool]
    ) -> T | None:
        """As `observe`, for what goes into modules as well as what comes out of them."""
        if not places:
            return forward()
        result: list[T] = []

        def call(_: int) -> None:
            result.append(forward())

        with self._instrumented() as wrapped, wrapped.trace(0, fn=call) as tracer:
            for place in places:
                name, side = place
                if visit(place, hidden_of(getattr(getattr(wrapped, name), side))):
                    tracer.stop()
        return result[0] if result else None

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        result: list[T] = []

        def call(_: int) -> None:
            result.append(run())
            raise _Done

        with self._instrumented() as wrapped, suppress(_Done), wrapped.trace(0, fn=call) as tracer:
            for _step in tracer.iter[:]:
                for name in names:
                    visit(name, hidden_of(getattr(wrapped, name).output))
        return result[0]

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """None: a trace wraps what it looks into from the beginning."""
        return None

    @contextmanager
    def _instrumented(self) -> Generator[Any]:
        """nnsight's `forward` on the modules, in code that runs eagerly; then their own again."""
        if self._slots() != self._own:
            self._rewrap()  # somebody has changed a `forward` since
        self._put(self._nnsights)
        try:
            with torch.compiler.set_stance("force_eager"):
                yield self._wrapped
        finally:
            self._put(self._own)

    def _rewrap(self) -> None:
        self._own = self._slots()
        self._wrapped = _wrap(self._modules)
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


def _wrap(modules: Mapping[str, nn.Module]) -> Any:
    nnsight = import_nnsight()

    class Leaf(nnsight.Envoy):
        """An envoy that does not look below its module."""

        def _add_envoy(self, name: str, module: nn.Module) -> None:
            return None

    container = nn.Module()
    for name, module in modules.items():
        container.add_module(name, module)
    return nnsight.NNsight(container, envoys=Leaf)
