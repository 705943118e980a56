"""The executor that uses forward hooks. It costs no more than a plain `register_forward_hook`.

A hook is on its module only during a look. It comes before the user's own hooks, as nnsight does: both see
what the module's own `forward` returned. Whoever calls the module meets the hook: it asks whose pass this is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from guardrail.engines.transformers.executor import TWICE, Visit, hidden_of
from guardrail.engines.transformers.stance import eagerly
from guardrail.engines.transformers.turn import Turn
from guardrail.errors import EvaluationError

T = TypeVar("T")


class _Stop(Exception):
    """Ends a forward pass whose visitor has seen enough."""


class Hooked:
    """A few modules by name, untouched between looks. `turn`: of their model, if it has one."""

    def __init__(self, modules: Mapping[str, nn.Module], turn: Turn | None = None) -> None:
        self._modules, self._turn = dict(modules), turn or Turn()

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        with self.visited(names, _once(visit)):
            try:
                return forward()
            except _Stop:
                return None

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        with self.visited(names, visit):
            return run()

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """As `steer`, from now until the returned function is called."""
        stack = ExitStack()
        stack.enter_context(self.visited(names, visit))
        return stack.close

    @contextmanager
    def visited(self, names: Sequence[str], visit: Visit) -> Generator[None]:
        """Show `visit` the named modules in every forward pass of this thread's request inside."""
        # a graph that was compiled before would run on without the hooks: nothing read, nothing steered
        with self._turn.looking(), eagerly():
            # in front: a user's hook may return another tensor, and all executors have to read the same one
            handles = [
                self._modules[name].register_forward_hook(_hook(name, visit, self._turn), prepend=True)
                for name in names
            ]
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()


def _hook(name: str, visit: Visit, turn: Turn) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if turn.mine and turn.apart(visit, name, hidden_of(output)):
            # a hook has no other way to end the pass
            raise _Stop
        # returns nothing: the output stays the module's own, changed in place or not

    return hook


def _once(visit: Visit) -> Visit:
    """Refuses to be shown a module again: one of the two calls is not of the pass that is looked into."""
    seen: set[str] = set()

    def first(name: str, hidden: Tensor) -> bool:
        if name in seen:
            raise EvaluationError(TWICE)
        seen.add(name)
        return visit(name, hidden)

    return first
