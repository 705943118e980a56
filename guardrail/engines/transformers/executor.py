"""What runs the guard inside a forward pass: shows a visitor the outputs of a few modules, as they run.

There are two. `nnsight.Traced` uses nnsight and is the reference; `hooks.Hooked` uses PyTorch's own forward
hooks, for passes that run at every token. Both show the same tensors in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor

T = TypeVar("T")
TWICE = "a decoder block was called twice in one guarded forward pass"
Visit = Callable[[str, Tensor], bool]
"""Called with a module's name and its output, which may be changed in place. True stops the forward."""


class Executor(Protocol):
    """Made of modules by name, in the order in which the forward pass visits them."""

    def observe(self, names: Sequence[str], forward: Callable[[], T], visit: Visit) -> T | None:
        """Run one forward pass and show `visit` the output of each named module; None if it was stopped."""
        ...

    def steer(self, names: Sequence[str], run: Callable[[], T], visit: Visit) -> T:
        """Run something that makes many forward passes, and show `visit` the named modules in each."""
        ...

    def begin(self, names: Sequence[str], visit: Visit) -> Callable[[], None] | None:
        """As `steer`, from now until the returned function is called; None if that is not possible."""
        ...


def hidden_of(output: Any) -> Tensor:
    """A block's residual stream [batch, positions, d_model]; some blocks return it first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def layer_name(layer: int) -> str:
    """The name of a decoder block under nnsight."""
    return f"layer_{layer}"


def layer_of(name: str) -> int:
    """The layer in a name made by `layer_name`."""
    return int(name.removeprefix("layer_"))
