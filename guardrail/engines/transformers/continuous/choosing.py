"""The next token of each reply: the model's own processors, each request's own random stream.

Requests of one batch may sample differently, so their tokens are chosen here and not by the manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guardrail.engines.transformers.logprobs import Logprobs
from guardrail.engines.transformers.model import LocalModel
from guardrail.engines.transformers.replying import Replying
from guardrail.engines.transformers.unsupported import check_generation
from guardrail.errors import UnsupportedGeneration
from guardrail.types import Sampling, TokenLogprob


class Chooser:
    """Chooses the tokens of one reply, as `generate` would for it alone.

    With a seed it draws the same numbers as `generate` after `torch.manual_seed`, whatever else is in the
    batch; of several replies to a prompt (`number`) each has its own. `most`: the longest reply that there is
    room for. Raises PromptError and UnsupportedGeneration.
    """

    def __init__(
        self, local: LocalModel, prompt: Sequence[int], sampling: Sampling, most: int, number: int = 0
    ) -> None:
        self._prompt, self._device = list(prompt), local.device
        self.longest = min(sampling.max_new_tokens, most)
        replying = Replying(local, replace(sampling, n=1), 1, len(prompt), None)
        self.ending, arguments = replying.ending, replying.arguments
        arguments.pop("streamer", None)
        self._stops: Any = arguments.pop("stopping_criteria", None)
        config = self._config(local.inner, arguments)
        self._processors = local.inner._get_logits_processor(
            config,
            input_ids_seq_length=len(prompt),
            device=str(self._device),
            logits_processor=arguments.get("logits_processor"),
        )
        self._logprobs = next((one for one in self._processors if isinstance(one, Logprobs)), None)
        self.samples = bool(config.do_sample)
        self._random = self._generator(sampling.seed, number) if self.samples else None

    def _config(self, inner: Any, arguments: dict[str, Any]) -> Any:
        """The configuration that `generate` would use."""
        given = {name: value for name, value in arguments.items() if name != "logits_processor"}
        check_generation(given, inner.generation_config)
        config, _ = inner._prepare_generation_config(None, **given)
        if (config.num_beams or 1) > 1:
            raise UnsupportedGeneration("beam search cannot be batched with other requests; use `generate`")
        inner._prepare_special_tokens(config, True, device=self._device)
        return config

    def _generator(self, seed: int | None, number: int) -> torch.Generator:
        found = torch.Generator(self._device)
        if seed is None:
            found.seed()
        else:
            found.manual_seed(seed + number)
        return found

    @property
    def plain(self) -> bool:
        """Whether the token is simply that of the highest logit."""
        return not self.samples and not self._processors

    @property
    def gives_logprobs(self) -> bool:
        """Whether `logprob` has something to say."""
        return self._logprobs is not None

    def choose(self, logits: Tensor, tokens: Sequence[int]) -> int:
        """The next token, from logits [vocabulary] float32 behind these tokens of the reply."""
        scores = logits[None]
        if self._processors:
            scores = self._processors(torch.tensor([[*self._prompt, *tokens]], device=self._device), scores)
        if not self.samples:
            return int(scores.argmax(-1))
        return int(torch.multinomial(torch.softmax(scores, -1), 1, generator=self._random))

    def logprob(self, token: int) -> TokenLogprob | None:
        """The log probability of the token just chosen, if it was asked for."""
        return self._logprobs.taken(torch.tensor([token]))[0] if self._logprobs else None

    def ended(self, tokens: Sequence[int]) -> bool:
        """Whether the reply ends with these tokens."""
        if len(tokens) >= self.longest or tokens[-1] in self.ending.ends:
            return True
        # of the prompt it only counts the columns
        ids = torch.tensor([[*self._prompt, *tokens]]) if self._stops else None
        return ids is not None and bool(self._stops(ids, None).all())
