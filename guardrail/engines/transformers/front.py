"""What stands in front of a guarded model: passes of others wait, and those of a request are told apart."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident
from typing import Any, TypeAlias

import torch
from torch import nn

from guardrail.engines.transformers.prefill_call import PrefillCall
from guardrail.engines.transformers.standin import StandIn
from guardrail.engines.transformers.turn import Turn
from guardrail.errors import EvaluationError, UnguardedCall

Ask: TypeAlias = Callable[[str], "Callable[..., Any] | None"]
"""Given a method's name (none: the model is copied or pickled), what to call instead; None for itself."""

BYPASS = (
    "this `generate` was taken from the model before the guard was installed, or from its class, and would "
    "bypass the guard; call the model's own"
)
BARRED = "this model's `generate` runs a forward pass outside of `_prefill`: generation was not guarded"

_asked: ContextVar[bool] = ContextVar("guardrail_asked", default=False)
"""Whether whoever generates has been told what there is to tell, or is the guard itself."""


@contextmanager
def unasked() -> Generator[None]:
    """Generation in here is known not to be guarded: nobody is warned, nothing is put in its place."""
    before = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(before)


class ModelEntrance(StandIn):
    """In place of the model's `forward`: passes of other threads wait until the request is served.

    Every decoded token comes through here, so this and the other entrance make as few calls as they can.
    """

    def __init__(self, model: nn.Module, turn: Turn) -> None:
        super().__init__(model, "forward")
        self._turn = turn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the pass, once it may; of the request's thread, it is the request's own if it was expected."""
        # a lock would break the graph of a model that is being compiled
        if torch.compiler.is_compiling() or self.retired:
            return self.own(*args, **kwargs)
        turn = self._turn
        if turn.owner != get_ident():
            with turn.lock:
                return self.own(*args, **kwargs)
        if turn.barred:
            raise EvaluationError(BARRED)
        expected, turn.expected = turn.expected, False
        before, turn.own = turn.own and not expected, expected
        try:
            return self.own(*args, **kwargs)
        finally:
            turn.own = before


class DecoderEntrance(StandIn):
    """In place of the `forward` of the module that holds the blocks, which others may call by itself."""

    def __init__(self, decoder: nn.Module, turn: Turn) -> None:
        super().__init__(decoder, "forward")
        self._turn = turn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As of the model; in a pass of the request, the first call of the decoder is its own."""
        if torch.compiler.is_compiling() or self.retired:
            return self.own(*args, **kwargs)
        turn = self._turn
        if turn.owner != get_ident():
            with turn.lock:
                return self.own(*args, **kwargs)
        if turn.barred:
            raise EvaluationError(BARRED)
        before = turn.own
        if before:
            turn.own, turn.inner = turn.inner, False
        try:
            return self.own(*args, **kwargs)
        finally:
            turn.own = before


class Preparation(StandIn):
    """In place of `prepare_inputs_for_generation`, which `generate` calls right before each of its passes."""

    def __init__(self, model: nn.Module, turn: Turn, step: Callable[[], None]) -> None:
        super().__init__(model, "prepare_inputs_for_generation")
        self._turn, self._step = turn, step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Announce the pass as the request's own, if its `generate` makes it. Raises what `step` does."""
        inputs, turn = self.own(*args, **kwargs), self._turn
        if turn.owner == get_ident() and not self.retired:
            self._step()
            turn.expected = turn.own = turn.inner = True
        return inputs


class Prefill(StandIn):
    """In place of `_prefill`, which `generate` calls once, for the forward pass over the prompt."""

    def __init__(self, model: nn.Module, turn: Turn, guarded: Callable[[PrefillCall], Any], ask: Ask) -> None:
        super().__init__(model, "_prefill")
        self._turn, self._guarded, self._ask = turn, guarded, ask

    def __call__(self, ids: Any, config: Any, model_kwargs: dict[str, Any], **rest: Any) -> Any:
        """The prompt's outputs, under guard if a request asks for them.

        Raises UnguardedCall for a `generate` that the guard does not stand in front of.
        """
        call = PrefillCall(original=self.own, ids=ids, config=config, model_kwargs=model_kwargs, rest=rest)
        if self.retired:
            return call()
        if not self._turn.here:
            if not _asked.get() and self._ask("generate") is not None:
                raise UnguardedCall(BYPASS)
            return call()
        self._turn.barred = False
        return self._guarded(call)


class PlainCall(StandIn):
    """In place of a method of the model that generates: whoever calls it is not guarded, unless told so."""

    def __init__(self, model: Any, name: str, turn: Turn, ask: Ask) -> None:
        super().__init__(model, name)
        self._turn, self._ask = turn, ask

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run what is to be called, also from within a request: its passes are not the request's."""
        if self.retired:
            return self.own(*args, **kwargs)
        if self._turn.here:
            return self._turn.apart(self._run, *args, **kwargs)
        return self._run(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if self.name == "generate" and not self.retired:
            self._ask("")
        return super().__reduce__()

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        instead = self._ask(self.name)
        if instead is None:
            with unasked():
                return self.own(*args, **kwargs)
        return instead(**dict(zip(self.__signature__.parameters, args, strict=False)), **kwargs)


class Front:
    """Everything that a guard puts on a model between requests.

    `guarded` runs the prompt's forward pass, `step` is called before every pass of a request's `generate`.
    """

    def __init__(
        self,
        model: Any,
        decoder: nn.Module,
        turn: Turn,
        guarded: Callable[[PrefillCall], Any],
        step: Callable[[], None],
    ) -> None:
        self._make: list[Callable[[], StandIn]] = [
            lambda: ModelEntrance(model, turn),
            lambda: DecoderEntrance(decoder, turn),
            lambda: Preparation(model, turn, step),
            lambda: Prefill(model, turn, guarded, self._asks),
        ]
        if decoder is model:
            del self._make[1]
        self._turn = turn
        self._ask: Ask | None = None
        self._plain: list[PlainCall] = []
        self._standing: list[StandIn] = []
        self.put()

    def intercept(self, holders: Sequence[Any], ask: Ask) -> None:
        """Ask before one of these, the last of them the model itself, generates by itself."""
        self._ask = ask
        self._plain = [PlainCall(holder, "generate", self._turn, ask) for holder in holders]
        if hasattr(holders[-1], "init_continuous_batching"):
            self._plain.append(PlainCall(holders[-1], "init_continuous_batching", self._turn, ask))
        for one in self._plain:
            one.put()

    def _asks(self, name: str) -> Callable[..., Any] | None:
        return self._ask(name) if self._ask else None

    def put(self) -> None:
        """Stand in front, also of what others have put there since."""
        if all(one.on_top for one in self._standing) and self._standing:
            return
        self.take_off()
        self._standing = [make() for make in self._make]
        for one in self._standing:
            one.put()

    def take_off(self) -> None:
        """Take everything off. What others have put something over stays there, without effect."""
        for one in self._standing:
            one.take_off()
        self._standing = []

    def close(self) -> None:
        """Take off everything, for good."""
        self.take_off()
        for one in self._plain:
            one.take_off()
