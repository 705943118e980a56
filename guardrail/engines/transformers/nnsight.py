"""Looking into a model by nnsight: the only file that imports it, and its only `with` block.

Only the blocks of the model that are read or steered are wrapped, each as a leaf under a container of our
own, and only while something looks into them: between looks, and while an unsteered reply is decoded, every
block has its own `forward`. Compiled code cannot be looked into: a compiled model runs eagerly for as long.

nnsight reads this file's source for the block of `steer`: its body stands on its own lines.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.executor import Visit, hidden_of

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

        def look() -> bool:
            return any(visit(place, self._value(place)) for place in places)

        with self._instrumented():
            return self._worker.beside(look, forward)

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        result: list[T] = []

        def call(_: int) -> None:
            result.append(run())
            raise _Done

        with self._instrumented(), suppress(_Done), self._wrapped.trace(0, fn=call) as tracer:
            for _step in tracer.iter[:]:
                for name in names:
                    visit(name, self._value((name, "output")))
        return result[0]

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """None: nnsight has to run what it looks into from the beginning."""
        return None

    def _value(self, place: Place) -> Tensor:
        """What stands at a place of the pass that runs; waits until the pass gets there."""
        name, side = place
        return hidden_of(getattr(getattr(self._wrapped, name), side))

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
        self._wrapped = _wrap(self._modules)
        self._worker = StandingWorker(self._wrapped.interleaver)
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


class StandingWorker:
    """A worker of nnsight's that stays from look to look: starting one is most of what a look would cost.

    Between looks it is parked at a barrier that nothing in the model releases. Each thread has its own, for a
    greenlet cannot leave its thread. It holds nothing of what it saw, so that it goes with whoever holds it.
    """

    def __init__(self, interleaver: Any) -> None:
        self._interleaver = interleaver
        self._todo: list[Callable[[], bool]] = []
        self._local = threading.local()

    def beside(self, look: Callable[[], bool], run: Callable[[], T]) -> T | None:
        """Run a forward pass with a look beside it; None where the look has seen enough.

        Raises nnsight's OutOfOrderError where the look waits for what the pass never reached.
        """
        mediator, result = self._rested(), None
        self._todo.append(look)
        self._interleaver.mediators = [mediator]
        try:
            mediator.pending = mediator.switch()  # to the first place
            with self._interleaver:
                result = run()
            if mediator.alive and not _rests(mediator):
                raise _never_reached(mediator)
        finally:
            self._interleaver.mediators = []
            self._todo.clear()
            self._put_away(mediator)
        return result

    def _rested(self) -> Any:
        mediator = getattr(self._local, "mediator", None)
        if mediator is None:
            mediator = self._local.mediator = _mediator(self._todo)
            mediator.start(self._interleaver)
        mediator.iteration = None  # whatever is reached next
        mediator.worker.gr_context = copy_context()
        return mediator

    def _put_away(self, mediator: Any) -> None:
        """At its barrier, without anybody's context; ended where it is not at its barrier."""
        from greenlet import GreenletExit

        if _rests(mediator):
            mediator.worker.gr_context = None
            return
        del self._local.mediator
        if mediator.alive:
            mediator.worker.throw(GreenletExit)


def _rests(mediator: Any) -> bool:
    """Whether a worker is parked at its barrier."""
    return mediator.alive and mediator.pending is not None and mediator.pending.provider is None


def _never_reached(mediator: Any) -> Exception:
    from nnsight.intervention.interleaver import OutOfOrderError

    return OutOfOrderError(f"`{mediator.pending}` was never reached in this forward pass")


def _mediator(todo: list[Callable[[], bool]]) -> Any:
    """What runs `todo`, one look whenever it is released from its barrier.

    A greenlet that is parked is never collected: what it runs must not refer to the mediator.
    """
    from nnsight.intervention.interleaver import EarlyStopException, Mediator

    def serve() -> None:
        while True:
            Mediator.barrier()
            if todo.pop()():
                raise EarlyStopException

    class Standing(Mediator):
        _run = staticmethod(serve)  # pyright: ignore[reportAssignmentType]

    return Standing(None, {}, {})


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
