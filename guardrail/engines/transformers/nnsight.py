"""Looking into a model by nnsight: the only file that imports it, and its only `with` block.

Only the blocks that are read or steered are wrapped, each as a leaf under a container of our own, and only
while they are looked into: between looks, and while an unsteered reply is decoded, every block has its own
`forward`. During a look others still get that one: nnsight follows one thread, and one pass of it. nnsight
cannot look into compiled code, so a compiled model runs eagerly during a look.

nnsight extracts the source of the block in `steer` from this file, so its body must be on lines of its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor, nn

from guardrail.engines.transformers.executor import TWICE, Visit, hidden_of
from guardrail.engines.transformers.stance import eagerly
from guardrail.engines.transformers.standin import StandIn
from guardrail.engines.transformers.turn import Turn
from guardrail.errors import EvaluationError

T = TypeVar("T")

Place: TypeAlias = tuple[str, Literal["input", "output"]]
"""A module's name, and which side of it."""

STATE = "__nnsight__"
"""Where nnsight keeps what it knows of a module, in the module's `__dict__`."""

SLOTS = ("forward", STATE)


def import_nnsight() -> Any:
    """nnsight, without the `.save` that it mounts on every object of the process."""
    # a `.save` that was there before belongs to user code, which may rely on it
    mounted = "nnsight" in sys.modules or hasattr(object(), "save")
    import nnsight

    if not mounted and hasattr(object(), "save"):
        from nnsight._c import unmount

        unmount("save")
    return nnsight


class _Done(Exception):
    """Ends an open loop of `steer` without nnsight's warning that the loop outran the run."""


class Controlled(StandIn):
    """nnsight's controller in place of a module's `forward`, for the passes of a request.

    `once`: whether a look is into one pass, in which the module can come only once.
    """

    def __init__(self, module: nn.Module, controller: Callable[..., Any], turn: Turn) -> None:
        super().__init__(module, "forward")
        self._controller, self._turn = controller, turn
        self.once = self.called = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, seen by nnsight or not."""
        if self._turn.mine and not self.retired:
            if self.once and self.called:
                raise EvaluationError(TWICE)
            self.called = True
            return self._controller(*args, **kwargs)
        if self._turn.here or self.retired:
            return self.own(*args, **kwargs)
        # another thread's: the module's own `forward` may be nnsight's too, if its user has wrapped the model
        with self._turn.lock:
            return self.own(*args, **kwargs)


class Traced:
    """A few modules under nnsight, by name. This executor is the reference.

    `turn`: of the model that they are in, if it has one.
    """

    def __init__(self, modules: Mapping[str, nn.Module], turn: Turn | None = None) -> None:
        self._modules, self._turn = dict(modules), turn or Turn()
        with self._turn.lock:
            self._rewrap()

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        return self.look([(name, "output") for name in names], forward, lambda at, h: visit(at[0], h))

    def look(
        self,
        places: Sequence[Place],
        forward: Callable[[], T],
        visit: Callable[[Place, Tensor], bool],
        skipped: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> T | None:
        """As `observe`, for the inputs of modules as well as their outputs.

        `skipped`: modules in front of all places that are not to run, and what they return instead.
        """
        if not places and not skipped:
            return forward()

        def look() -> bool:
            for name, value in skipped.items():
                getattr(self._wrapped, name).skip(value)
            # lazily, because reading a value parks the worker until the pass gets there
            return any(self._turn.apart(visit, place, self._value(place)) for place in places)

        with self._instrumented(once=True):
            return self._worker.beside(look, forward)

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        # a trace of nnsight's own, not the standing worker, which looks at a single pass
        result: list[T] = []

        def call(_: int) -> None:
            result.append(run())
            # the number of passes is not known beforehand, so the loop below has no end of its own
            raise _Done

        with self._instrumented(), suppress(_Done), self._wrapped.trace(0, fn=call) as tracer:
            for _step in tracer.iter[:]:
                for name in names:
                    self._turn.apart(visit, name, self._value((name, "output")))
        return result[0]

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """None: nnsight cannot join a run that has already begun."""
        return None

    def _value(self, place: Place) -> Tensor:
        """The value at a place of the running pass; waits until the pass gets there."""
        name, side = place
        return hidden_of(getattr(getattr(self._wrapped, name), side))

    @contextmanager
    def _instrumented(self, once: bool = False) -> Generator[None]:
        """nnsight's `forward` on the modules, run eagerly; then their own again."""
        # a graph that was compiled before would run on without nnsight's `forward`, unread
        with self._turn.looking(), eagerly():
            if not all(one.fits for one in self._controlled):
                # a `forward` was replaced since; nnsight's would still call the one that it wrapped
                self._rewrap()
            for one in self._controlled:
                one.once, one.called = once, False
                one.put()
            try:
                yield
            finally:
                for one in self._controlled:
                    one.take_off()

    def _rewrap(self) -> None:
        modules = list(self._modules.values())
        before = [{name: m.__dict__[name] for name in SLOTS if name in m.__dict__} for m in modules]
        for module in modules:
            # a user may have wrapped the model as well; nnsight would share that state
            module.__dict__.pop(STATE, None)
        self._wrapped = _wrap(self._modules)
        self._worker = StandingWorker(self._wrapped.interleaver)
        controllers = [module.__dict__["forward"] for module in modules]
        for module, own in zip(modules, before, strict=True):
            _put_back(module, own)
        pairs = zip(modules, controllers, strict=True)
        self._controlled = [Controlled(module, controller, self._turn) for module, controller in pairs]


class StandingWorker:
    """One of nnsight's workers, kept from look to look, because starting one is most of the cost of a look.

    Between looks it is parked at a barrier: every other event that it could wait for is one that the model
    triggers. Each thread has its own, because a greenlet cannot be resumed in another thread. It keeps no
    reference to what it saw, so activations and models are freed as if it did not exist.
    """

    def __init__(self, interleaver: Any) -> None:
        self._interleaver = interleaver
        # shared with the worker, which would otherwise need a reference to this object
        self._todo: list[Callable[[], bool]] = []
        self._local = threading.local()

    def beside(self, look: Callable[[], bool], run: Callable[[], T]) -> T | None:
        """Run a forward pass with a look beside it; None if the look has seen enough.

        Raises nnsight's OutOfOrderError if the look still waits for a place when the pass is over.
        """
        mediator, result = self._rested(), None
        self._todo.append(look)
        self._interleaver.mediators = [mediator]
        try:
            # the worker has to be waiting at its first place before the model gets there
            mediator.pending = mediator.switch()
            with self._interleaver:
                result = run()
            if mediator.alive and not _rests(mediator):
                raise _never_reached(mediator)
        finally:
            # also after a failure: the next pass must not meet this look
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
        # a greenlet has a context of its own, and visitors have to see the request's; Python only gives out
        # copies of the current one
        mediator.worker.gr_context = copy_context()
        return mediator

    def _put_away(self, mediator: Any) -> None:
        """Park the worker without a context. End it if it is not at its barrier."""
        from greenlet import GreenletExit

        if _rests(mediator):
            # a parked worker would keep the values of the request's context alive
            mediator.worker.gr_context = None
            return
        # a stopped pass or an error ended it, or it waits for a place that will never come: start another
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
    """A worker that runs `todo`, one look each time it is released from its barrier.

    What it runs must not refer to the mediator: the garbage collector cannot see into the frames of a parked
    greenlet, so a cycle through them would never be freed.
    """
    from nnsight.intervention.interleaver import EarlyStopException, Mediator

    def serve() -> None:
        while True:
            Mediator.barrier()
            # not bound to a name, which would keep the look alive while the worker is parked
            if todo.pop()():
                raise EarlyStopException

    class Standing(Mediator):
        # static, because a bound method would refer to the mediator
        _run = staticmethod(serve)  # pyright: ignore[reportAssignmentType]

    return Standing(None, {}, {})


def _put_back(module: nn.Module, own: Mapping[str, Any]) -> None:
    for name in SLOTS:
        module.__dict__.pop(name, None)
    module.__dict__.update(own)


def _wrap(modules: Mapping[str, nn.Module]) -> Any:
    nnsight = import_nnsight()

    class Leaf(nnsight.Envoy):
        """An envoy that does not look below its module."""

        # envoys of submodules would put nnsight's `forward` on attention and MLP as well
        def _add_envoy(self, name: str, module: nn.Module) -> None:
            return None

    container = nn.Module()
    for name, module in modules.items():
        container.add_module(name, module)
    return nnsight.NNsight(container, envoys=Leaf)
