"""A loaded model with its tokenizer and chat template. The guard and extraction both use it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from math import nan
from typing import Any, Literal

import torch
from torch import Tensor

from guardrail.engines import Prompt
from guardrail.engines.transformers.activations import Site, TransformersActivations
from guardrail.engines.transformers.batches import averaging, padded
from guardrail.engines.transformers.blocks import check_supported, decoder_blocks, text_config, unwrapped
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.lengths import switches
from guardrail.engines.transformers.rendering import Renderer
from guardrail.engines.transformers.self_test import LONG, SelfTest
from guardrail.engines.transformers.turn import turn_of
from guardrail.types import POSITIONS, Array, Message, Position


class LocalModel:
    """Wraps a decoder-only model without changing it.

    `inner` is the transformers model, also inside a PEFT wrapper; `turn` is taken while it is looked into.
    `chat_template` and `template_arguments` are used instead of the tokenizer's own. Raises ModelError for
    models that cannot be guarded.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        chat_template: str | None = None,
        template_arguments: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.inner = unwrapped(model)
        check_supported(self.inner)
        self.blocks = decoder_blocks(self.inner)
        self._rendering = chat_template, template_arguments
        self.turn = turn_of(self.blocks)
        self.activations = TransformersActivations(self.inner, self.blocks, self.turn)
        self.identify()

    def identify(self) -> None:
        """Test and take the fingerprint of the model as it is now. Raises ModelError."""
        # again, because the tokenizer may have got another template
        self.renderer = made = Renderer(self.tokenizer, *self._rendering)
        test = SelfTest(self.model, self.inner, self.blocks, self.trial, self.pad_token)
        test.run()
        self.positions: frozenset[Position] = frozenset(POSITIONS if test.every_token else ("last",))
        self.fingerprint = fingerprint(self.model, self.tokenizer, made.template, made.arguments)

    @property
    def trial(self) -> list[int]:
        """A few tokens that mean nothing in particular."""
        special = {*self.tokenizer.all_special_ids, *self.end_tokens, self.pad_token}
        known = range(min(text_config(self.inner).vocab_size, len(self.tokenizer)))
        plain = [token for token in known[len(known) // 4 :] if token not in special]
        return plain[:LONG]

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the model takes."""
        return int(getattr(text_config(self.inner), "max_position_embeddings", None) or 1 << 30)

    @cached_property
    def switches(self) -> tuple[int, ...]:
        """The lengths beyond which a row changes how its batch is read; empty for most models."""
        return switches(self.inner)

    @property
    def vocabulary(self) -> int:
        """How many token ids the model has an embedding for."""
        held = getattr(self.inner.get_input_embeddings(), "num_embeddings", None)
        return int(held or text_config(self.inner).vocab_size)

    @property
    def device(self) -> torch.device:
        """The device that token ids have to be on."""
        return self.inner.device

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a reply."""
        eos = self.inner.generation_config.eos_token_id
        given = eos if isinstance(eos, list) else [eos]
        return frozenset(int(token) for token in (*given, self.tokenizer.eos_token_id) if token is not None)

    @property
    def pad_token(self) -> int:
        """What fills a batch; an end token if the tokenizer has no padding token."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else min(self.end_tokens, default=0)

    def without_autograd(self) -> AbstractContextManager[Any]:
        """For passes of which no tensor gets out: inference mode, which makes small models faster.

        Code that did not come with transformers may keep a tensor of such a pass (a table of rotations, say),
        which could never be trained with again: it runs without gradients only.
        """
        known = type(self.inner).__module__.startswith("transformers.")
        return torch.inference_mode() if known else torch.no_grad()

    def render(self, messages: Sequence[Message], positions: Collection[Position] = ()) -> Prompt:
        """The prompt's ids, up to where the reply begins. Raises PromptError if the template refuses."""
        return self.renderer.render(messages, (), positions)

    def hidden_states(
        self, prompt: Prompt, layers: Sequence[int], position: Position | Literal["all"]
    ) -> dict[int, Array]:
        """The residual stream after each layer: [tokens, d_model] for `all`, else [d_model]."""
        ids, mask = self.padded([prompt.ids], left=True)
        sites = [Site(layer) for layer in layers]
        if position in ("last", "all"):
            found = self.activations.read(ids, mask, sites, position)
        else:
            runs = prompt.spans[position]
            weights = averaging([[runs]], ids.shape[1]).to(ids.device)
            means = self.activations.read(ids, mask, sites, weights if runs else weights * nan)
            found = {site: states[:, 0] for site, states in means.items()}
        return {site.layer: states[0].float().cpu().numpy() for site, states in found.items()}

    def padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """ids and mask [rows, tokens], on the model's device."""
        return padded(rows, self.pad_token, left=left, device=self.device)
