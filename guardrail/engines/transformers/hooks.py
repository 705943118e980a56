"""The executor that uses forward hooks. It costs no more than a plain `register_forward_hook`.

A hook is on its module only during a look. It comes before the user's own hooks, as nnsight does: both see
what the module's own `forward` returned.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from guardrail.engines.transformers.executor import Visit, hidden_of

T = TypeVar("T")


class _Stop(Exception):
    """Ends a forward pass whose visitor has seen enough."""


class Hooked:
    """A few modules by name, untouched between looks."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        with self.visited(names, visit):
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
        """Show `visit` the named modules in every forward pass inside."""
        # in front: a user's hook may return another tensor, and all executors have to read the same one
        handles = [
            self._modules[name].register_forward_hook(_hook(name, visit), prepend=True) for name in names
        ]
        try:
            # a graph that was compiled before would run on without the hooks: nothing read, nothing steered
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for handle in handles:
                handle.remove()


def _hook(name: str, visit: Visit) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        if visit(name, hidden_of(output)):
            # a hook has no other way to end the pass
            raise _Stop
        # returns nothing: the output stays the module's own, changed in place or not

    return hook
