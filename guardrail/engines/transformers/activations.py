"""Reading and patching activations through nnsight, for extraction, training and interpretation."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from guardrail.engines.transformers.attention import Attended, last_attention
from guardrail.engines.transformers.blocks import head_count, output_projection, submodule
from guardrail.engines.transformers.caches import CACHES
from guardrail.engines.transformers.ends import Ends, at_columns
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.nnsight import Place, Traced
from guardrail.engines.transformers.turn import Turn
from guardrail.errors import ModelError

Component: TypeAlias = Literal["resid", "attn", "mlp", "heads"]
"""Residual stream, outputs of attention and MLP, or what all heads hand to the output projection."""
COMPONENTS: tuple[Component, ...] = ("heads", "attn", "mlp", "resid")
"""In the order in which a block computes them."""
Positions: TypeAlias = "Literal['all', 'last'] | Tensor"


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model: layer 1 to L, or 0 with `resid` for the embedding output.

    Values are [rows, tokens, d_model]; those of `heads` are [rows, tokens, heads * head size], head by head.
    """

    layer: int
    component: Component = "resid"


Change: TypeAlias = Callable[[Tensor], None]
"""Gets a site's values [rows, tokens, width] as the pass computes them, and may write to them in place."""


@dataclass(frozen=True, slots=True)
class Start:
    """Layers up to this one are not computed: `states` [rows, tokens, d_model] are what this one gives."""

    layer: int
    states: Tensor


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first tokens of a prompt, which are not computed again: what attention keeps of them, one row."""

    tokens: int
    cache: Any

    def repeated(self, rows: int) -> Any:
        """A cache of so many rows, to be written to."""
        copied = copy.deepcopy(self.cache)
        copied.batch_repeat_interleave(rows)
        return copied


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

    @property
    def heads(self) -> int:
        """How many query heads each attention has."""
        return head_count(self._model)

    def head_size(self, layer: int) -> int:
        """The width of one head in values of `heads`. Raises ModelError if heads cannot be told apart."""
        projection = self._module(Site(layer, "heads"))
        # GPT-2's is [inputs, outputs], without `in_features`
        inputs = getattr(projection, "in_features", None) or projection.get_parameter("weight").shape[0]
        return int(inputs) // self.heads

    def read(
        self,
        ids: Tensor,
        mask: Tensor | None,
        sites: Sequence[Site],
        positions: Positions = "last",
        *,
        prefix: Prefix | None = None,
    ) -> Mapping[Site, Tensor]:
        """Activations at each site: [rows, tokens, d_model] for `all`, else [rows, d_model].

        ids, mask: [rows, tokens], padded on either side. positions: `all`, `last` (each row's last token),
        a column for each row [rows], or weights [rows, k, tokens], which give weighted sums over tokens in
        float32, [rows, k, d_model]. Site(0) is the embedding output. prefix: what `ids` come behind, padded
        on the right and without a mask. Nothing above the last site is computed. Raises ModelError for
        layers that the model does not have.
        """
        take = _selection(positions, mask, ids.shape[1])
        found: dict[Place, Tensor] = {}

        def visit(place: Place, hidden: Tensor) -> bool:
            found[place] = take(hidden)
            return len(found) == len(set(sites))

        self._run(ids, mask, sites, visit, prefix=prefix)
        return {site: found[_place(site)] for site in sites}

    def patch(self, ids: Tensor, mask: Tensor | None, edits: Sequence[Edit]) -> Tensor:
        """Logits [rows, tokens, vocabulary] of a forward pass with the edits applied."""
        changes: dict[Site, Change] = {}
        for site in {edit.site for edit in edits}:
            changes[site] = partial(_put, [edit for edit in edits if edit.site == site])
        return self.run(ids, mask, changes)

    def run(
        self,
        ids: Tensor,
        mask: Tensor | None,
        changes: Mapping[Site, Change],
        start: Start | None = None,
        *,
        prefix: Prefix | None = None,
        last: bool = False,
    ) -> Tensor:
        """Logits [rows, tokens, vocabulary] of a pass in which sites are shown, to be read or changed.

        last: only of the last column, [rows, vocabulary]. start: leaves out the layers below. prefix: what
        `ids` and every site's tokens come behind, without a mask. Raises ModelError for sites that this
        model does not have.
        """

        def visit(place: Place, hidden: Tensor) -> bool:
            places[place](hidden)
            return False

        places = {_place(site): change for site, change in changes.items()}
        logits = self._run(ids, mask, list(changes), visit, start, last, prefix).logits
        return logits[:, -1] if last else logits

    def prefix(self, ids: Tensor) -> Prefix | None:
        """What attention keeps of `ids` [1, tokens]; None for a model that keeps anything else.

        What comes behind it may differ from a whole pass where a model's cache forgets: compare once.
        """
        name = self._cache_name
        if name is None:
            return None
        with evaluating(self._model.modules()), torch.no_grad():
            cache = self._model(input_ids=ids, use_cache=True, **self._outputs(last=True)).get(name)
        return Prefix(ids.shape[1], cache) if type(cache) is DynamicCache else None

    @property
    def _cache_name(self) -> str | None:
        known = inspect.signature(self._model.forward).parameters
        return next((name for name in CACHES if name in known), None)

    def _behind(self, prefix: Prefix | None, rows: int) -> dict[str, Any]:
        if prefix is None or self._cache_name is None:
            return {}
        return {self._cache_name: prefix.repeated(rows), "use_cache": True}

    def attention(self, ids: Tensor, mask: Tensor | None) -> Attended:
        """What the last column of each row attends to, in every layer and head. Pad on the left.

        Raises ModelError for a model whose attention cannot be read.
        """
        return last_attention(list(self._blocks), lambda: self.run(ids, mask, {}, last=True))

    def _run(
        self,
        ids: Tensor,
        mask: Tensor | None,
        sites: Sequence[Site],
        visit: Callable[[Place, Tensor], bool],
        start: Start | None = None,
        last: bool = False,
        prefix: Prefix | None = None,
    ) -> Any:
        ordered = sorted(set(sites), key=_order)
        modules = {_place(site)[0]: self._module(site) for site in ordered}
        skipped = [_name(Site(layer)) for layer in range(1, start.layer + 1)] if start else []
        modules |= {name: self._blocks[i] for i, name in enumerate(skipped)}
        inputs = self._inputs(ids, mask) | self._outputs(last) | self._behind(prefix, len(ids))
        with evaluating(self._model.modules()), torch.no_grad():
            return Traced(modules, self._turn).look(
                [_place(site) for site in ordered],
                lambda: self._model(**inputs),
                visit,
                dict.fromkeys(skipped, start.states) if start else {},
            )

    def _outputs(self, last: bool) -> dict[str, Any]:
        """Arguments that spare the model the logits of other columns, if it knows them."""
        known = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        return {"logits_to_keep": 1} if last and known else {}

    def _inputs(self, ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if mask is not None and "position_ids" in inspect.signature(self._model.forward).parameters:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return inputs

    def _module(self, site: Site) -> nn.Module:
        if not 0 <= site.layer <= len(self._blocks) or (site.layer == 0 and site.component != "resid"):
            raise ModelError(f"{site} is not in this model; layers are 1 to {len(self._blocks)}")
        block = self._blocks[max(site.layer, 1) - 1]
        if site.component == "resid":
            return block
        if site.component == "heads":
            return output_projection(submodule(block, "attn"))
        return submodule(block, site.component)


def _put(edits: Sequence[Edit], hidden: Tensor) -> None:
    for edit in edits:
        where = slice(None) if edit.position is None else edit.position
        hidden[:, where] = edit.value.to(hidden.device, hidden.dtype)


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
    return site.layer, COMPONENTS.index(site.component)


def _name(site: Site) -> str:
    return f"{site.component}_{max(site.layer, 1)}"


def _place(site: Site) -> Place:
    return _name(site), "input" if site.layer == 0 or site.component == "heads" else "output"
