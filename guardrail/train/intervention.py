"""What is done to a model, or to its data, while it is trained: one interface for all interventions.

    with PreventativeSteering(model, vectors["evil"], 1.0) as steering:
        SFTTrainer(model, train_dataset=rows, callbacks=[steering]).train()

As a context manager it is on the model inside the block, whatever trains there. As a callback alone it is on
from the beginning of `train` to its end; if `train` raises, only the block, or `detach`, takes it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from torch import Tensor
from transformers import TrainerCallback

from guardrail.errors import ModelError, SteeringError
from guardrail.train.passes import ChangedPasses, blocks_of
from guardrail.types import Message

Conversation: TypeAlias = Sequence[Message]
"""Turns of which the last one is the assistant's reply that is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an intervention has done so far.

    `passes`: forward passes with gradients that were changed. `recomputed`: how often gradient checkpointing
    ran a changed block again. `rows`: conversations that were changed. `penalty`: the mean one of all passes,
    without its weight. `digest`: the SHA-256 of the vectors or prompts.
    """

    kind: str
    traits: tuple[str, ...] = ()
    coefficients: tuple[float, ...] = ()
    layers: tuple[int, ...] = ()
    steps: int = 0
    passes: int = 0
    recomputed: int = 0
    rows: int = 0
    penalty: float | None = None
    digest: str = ""


class Intervention(TrainerCallback):
    """Base of interventions: by itself it changes nothing."""

    kind = "none"

    def prepared(self, conversations: Sequence[Conversation], seed: int = 0) -> list[Conversation]:
        """The conversations to train on instead of these."""
        return list(conversations)

    def attach(self, model: Any = None) -> None:
        """Begin to change the passes of the model."""

    def detach(self) -> None:
        """Leave the model as it was before `attach`."""

    def resume(self, earlier: Applied) -> None:
        """Go on counting from what an interrupted run had done."""

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        return Applied(kind=self.kind)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.detach()


class ModelIntervention(Intervention):
    """Changes the outputs of `layers` in training passes. `model`: None for the one that the trainer has.

    Raises SteeringError if a training step, or a whole block, ran without a changed pass, and for a block
    within its own block.
    """

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        self.layers = tuple(sorted(set(layers)))
        self._model = model
        self._passes: ChangedPasses | None = None
        self._earlier = Applied(kind=self.kind)
        self._steps, self._at_step = 0, 0
        self._inside = self._trainer = False

    def changed(self, layer: int, hidden: Tensor) -> Tensor:
        """The new output [rows, tokens, d_model] of a layer. A function of the old one and of constants."""
        raise NotImplementedError

    def begin(self, model: Any) -> None:
        """What comes before the first changed pass. Raises ModelError if the model does not fit."""

    def end(self) -> None:
        """What comes after the last changed pass."""

    def attach(self, model: Any = None) -> None:
        """Begin to change the passes of the model. Raises SteeringError for another one than the given."""
        given = self._model if self._model is not None else model
        if given is None:
            raise ModelError("which model? give one, or use this as a callback of a trainer")
        if model is not None and blocks_of(model) is not blocks_of(given):
            raise SteeringError("the trainer trains another model than the one that this was made for")
        if self._passes is not None and self._passes.blocks is not blocks_of(given):
            # an earlier training failed, or ended inside the block, with another model
            self.detach()
        if self._passes is None:
            self.begin(given)
            self._passes = ChangedPasses(given, self.layers, self.changed)

    def detach(self) -> None:
        """Leave the model as it was before `attach`."""
        if self._passes is not None:
            self._passes.close()
            self._earlier, self._passes = self.applied, None
            self.end()

    @property
    def applied(self) -> Applied:
        """What has been done so far."""
        recomputed = self._passes.counts.recomputed if self._passes else 0
        return Applied(
            kind=self.kind,
            layers=self.layers,
            steps=self._steps,
            passes=self.passes,
            recomputed=self._earlier.recomputed + recomputed,
        )

    @property
    def passes(self) -> int:
        """Forward passes with gradients that were changed."""
        return self._earlier.passes + (self._passes.counts.passes if self._passes else 0)

    def resume(self, earlier: Applied) -> None:
        """Go on counting from what an interrupted run had done."""
        self._earlier, self._steps = earlier, earlier.steps

    def __enter__(self) -> Self:
        if self._inside:
            # the inner block would take it off the model, and the rest of the outer one go unchanged
            raise SteeringError(f"{self.kind}: a block within its own block; make another intervention")
        self._inside, self._trainer, self._at_step = True, False, self.passes
        # without a model it waits for the trainer's
        return self if self._model is None else super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._inside = False
        self.detach()
        # a trainer that resumed at its last step has nothing left to do; each of its steps was looked at
        if kind is None and not self._trainer:
            self._check_changed("the block")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer. Raises SteeringError if it runs replicas in threads."""
        if args.n_gpu > 1:
            raise SteeringError("DataParallel is not supported: start with torchrun, or show one GPU only")
        self.attach(kwargs["model"])
        self._trainer = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        self._at_step = self.passes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer. Raises SteeringError if no pass of the step was changed."""
        self._check_changed(f"training step {state.global_step}")
        self._steps += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer."""
        if not self._inside:
            self.detach()

    def _check_changed(self, where: str) -> None:
        if self.passes == self._at_step:
            raise SteeringError(f"{self.kind}: no forward pass in training mode was changed in {where}")
