"""Reading and patching activations through nnsight, for extraction, training and interpretation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from guardrail.engines.transformers.blocks import submodule
from guardrail.engines.transformers.ends import Ends, at_columns
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.nnsight import Place, Traced
from guardrail.engines.transformers.turn import Turn
from guardrail.errors import ModelError

Component: TypeAlias = Literal["resid", "attn", "mlp"]
Positions: TypeAlias = "Literal['all', 'last'] | Tensor"


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model: layer 1 to L, or 0 with `resid` for the embedding output."""

    layer: int
    component: Component = "resid"


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `value` at a site: [batch, d_model] or [d_model] at one position, or at every position (None)."""

    site: Site
    value: Tensor
    position: int | None = None


class TransformersActivations:
    """`read` and `patch` one forward pass. Modules are wrapped only during the pass."""

    def __init__(self, model: Any, blocks: nn.ModuleList, turn: Turn) -> None:
        self._model, self._blocks, self._turn = model, blocks, turn

    def read(
        self, ids: Tensor, mask: Tensor | None, sites: Sequence[Site], positions: Positions = "last"
    ) -> Mapping[Site, Tensor]:
        """Activations at each site: [rows, tokens, d_model] for `all`, else [rows, d_model].

        ids, mask: [rows, tokens], padded on either side. positions: `all`, `last` (each row's last token),
        a column for each row [rows], or weights [rows, k, tokens], which give weighted sums over tokens in
        float32, [rows, k, d_model]. Site(0) is the embedding output. Raises ModelError for other layers.
        """
        take = _selection(positions, mask, ids.shape[1])
        found: dict[Place, Tensor] = {}

        def visit(place: Place, hidden: Tensor) -> bool:
            found[place] = take(hidden)
            return len(found) == len(set(sites))

        self._run(ids, mask, sites, visit)
        return {site: found[_place(site)] for site in sites}

    def patch(self, ids: Tensor, mask: Tensor | None, edits: Sequence[Edit]) -> Tensor:
        """Logits [rows, tokens, vocabulary] of a forward pass with the edits applied."""

        def visit(place: Place, hidden: Tensor) -> bool:
            for edit in edits:
                if _place(edit.site) == place:
                    where = slice(None) if edit.position is None else edit.position
                    hidden[:, where] = edit.value.to(hidden.device, hidden.dtype)
            return False

        return self._run(ids, mask, [edit.site for edit in edits], visit).logits

    def _run(
        self,
        ids: Tensor,
        mask: Tensor | None,
        sites: Sequence[Site],
        visit: Callable[[Place, Tensor], bool],
    ) -> Any:
        ordered = sorted(set(sites), key=_order)
        modules = {_place(site)[0]: self._module(site) for site in ordered}
        with evaluating(self._model.modules()), torch.no_grad():
            return Traced(modules, self._turn).look(
                [_place(site) for site in ordered], lambda: self._model(**self._inputs(ids, mask)), visit
            )

    def _inputs(self, ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if mask is not None and "position_ids" in inspect.signature(self._model.forward).parameters:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return inputs

    def _module(self, site: Site) -> nn.Module:
        if not 0 <= site.layer <= len(self._blocks) or (site.layer == 0 and site.component != "resid"):
            raise ModelError(f"{site} is not in this model; layers are 1 to {len(self._blocks)}")
        block = self._blocks[max(site.layer, 1) - 1]
        return block if site.component == "resid" else submodule(block, site.component)


def _selection(positions: Positions, mask: Tensor | None, tokens: int) -> Callable[[Tensor], Tensor]:
    """What is kept of hidden [rows, tokens, d_model]."""
    if isinstance(positions, str):
        if positions == "all":
            return Tensor.clone
        ends = Ends(mask, tokens)
        return lambda hidden: ends.at(hidden).clone()
    if positions.ndim == 3:
        return lambda hidden: positions.to(hidden.device) @ hidden.float()
    return lambda hidden: at_columns(hidden, positions).clone()


def _order(site: Site) -> tuple[int, int]:
    return site.layer, ("attn", "mlp", "resid").index(site.component)


def _place(site: Site) -> Place:
    name = f"{site.component}_{max(site.layer, 1)}"
    return name, "input" if site.layer == 0 else "output"
