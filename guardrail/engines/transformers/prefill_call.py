"""The prefill that `generate` is about to make: what it computes, and how to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from guardrail.engines.transformers.caches import cache_name, cache_of
from guardrail.errors import UnsupportedGeneration


@dataclass(frozen=True, kw_only=True)
class PrefillCall:
    """One call of the model's own `_prefill`, as `generate` made it. Calling it runs it."""

    original: Callable[..., Any]
    ids: Tensor
    config: Any
    model_kwargs: dict[str, Any]
    rest: dict[str, Any]

    def __call__(self) -> Any:
        """The outputs of the prompt's forward pass."""
        return self.original(self.ids, self.config, self.model_kwargs, **self.rest)

    @property
    def mask(self) -> Tensor | None:
        """The attention mask over everything so far, None if nothing is padded."""
        return self.model_kwargs.get("attention_mask")

    @property
    def cache(self) -> Any:
        """The key-value cache, possibly filled by earlier turns."""
        return cache_of(self.model_kwargs)

    @property
    def _whole(self) -> bool:
        """Whether the ids are all tokens so far, not only the new ones."""
        return self.mask is None or self.mask.shape[1] == self.ids.shape[1]

    @property
    def first(self) -> int:
        """The first column of the whole prompt that the forward pass computes.

        Raises UnsupportedGeneration if the ids are not the whole prompt: nobody knows what the cache holds.
        """
        if not self._whole:
            raise UnsupportedGeneration(
                "a policy reads more of a prompt than its last token, and `input_ids` holds only its end: "
                "give the whole prompt without a cache, or a policy whose probe reads `last`"
            )
        return self.ids.shape[1] - self.columns

    @property
    def columns(self) -> int:
        """How many positions the forward pass computes."""
        past = self.cache.get_seq_length() if self.cache is not None and self._whole else 0
        return self.ids.shape[1] - past

    def again(self, cache: Any) -> PrefillCall:
        """The same call for what is not in this cache: the last position alone."""
        ids = self.ids if self._whole else self.ids[:, -1:]
        held = {} if cache is None else {cache_name(self.model_kwargs): cache}
        return replace(self, ids=ids, model_kwargs={**self.model_kwargs, **held})
