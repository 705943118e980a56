"""A local model as judge: uses the log-probabilities of the full strings "0" to "100".

The prompts of a batch are read once; each answer continues a copy of their KV cache.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from guardrail.engines.transformers.batches import padded
from guardrail.engines.transformers.blocks import text_config, unwrapped
from guardrail.engines.transformers.caches import cache_name
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.lengths import batched, switches
from guardrail.engines.transformers.modes import evaluating
from guardrail.engines.transformers.pretrained import load_pretrained
from guardrail.engines.transformers.rendering import Renderer
from guardrail.errors import JudgeError
from guardrail.extract.judges.aggregation import MIN_MASS
from guardrail.extract.judges.cache import Opinions, in_order
from guardrail.extract.judges.numbers import Ids, spell_answers
from guardrail.extract.judges.opinions import Opinion
from guardrail.plugins.protocols import JudgeRequest
from guardrail.traits import fill
from guardrail.types import Message

PLAIN = "builtin:plain"
RULE = f"numbers have at least {MIN_MASS} of the probability"
"""Part of the identity: scores that were cached under another rule are not reused."""
TEMPLATE_ARGUMENTS = {"enable_thinking": False}
"""Turns off thinking, which the model would do first. Templates without thinking ignore it."""


class LocalJudge:
    """`model` reads each filled-in rubric as one user message. Deterministic, without sampling.

    Raises JudgeError for a tokenizer without digits. Not thread-safe.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, batch_size: int = 8) -> None:
        template = None if getattr(tokenizer, "chat_template", None) else PLAIN
        self.name = f"local:{name}"
        self.model = model
        self.batch_size = batch_size
        self.renderer = Renderer(tokenizer, template, TEMPLATE_ARGUMENTS)
        self.answers = spell_answers(self._encode, tokenizer.get_vocab(), tokenizer.unk_token_id)
        mark = fingerprint(model, tokenizer, self.renderer.template, TEMPLATE_ARGUMENTS)
        self.identity = f"local:{hashlib.sha256(f'{RULE} {mark!r}'.encode()).hexdigest()}"
        self.max_tokens = int(getattr(text_config(unwrapped(model)), "max_position_embeddings", 1 << 30))
        self._switches = switches(unwrapped(model))
        self._pad = tokenizer.pad_token_id or 0
        self._accepted = frozenset(inspect.signature(unwrapped(model).forward).parameters)

    @classmethod
    def load(cls, name: str) -> Self:
        """Load a hub id, a folder or `demo`, on a GPU if there is one. Raises ModelError."""
        model, tokenizer = load_pretrained(name, {})
        return cls(model.to("cuda") if torch.cuda.is_available() else model, tokenizer, name)

    def scores(self, requests: Sequence[JudgeRequest]) -> Sequence[float | None]:
        """Scores in the order of the requests. Raises JudgeError if a request is too long for the model."""
        return [one.score for one in self.opinions(requests)]

    def opinions(self, requests: Sequence[JudgeRequest]) -> Sequence[Opinion]:
        """As `scores`, with the mass of the numbers."""
        return in_order(self, requests)

    def stream(self, requests: Sequence[JudgeRequest]) -> Iterator[Opinions]:
        """Scores batch by batch, prompts of similar length together."""
        prompts = [self._prompt(fill(r.rubric, r.question, r.answer)) for r in requests]
        lengths = [len(prompt) for prompt in prompts]
        for batch in batched(lengths, self.batch_size, math.inf, self._switches):
            yield list(zip(batch, self._judged([prompts[i] for i in batch]), strict=True))

    def _prompt(self, text: str) -> tuple[int, ...]:
        ids = self.renderer.render((Message("user", text),)).ids
        longest = self.max_tokens - max(map(len, self.answers.paths))
        if len(ids) > longest:
            raise JudgeError(f"{self.name} reads at most {longest} tokens, but a request has {len(ids)}")
        return ids

    def _encode(self, answer: str) -> Sequence[int]:
        """Token ids of an answer at the start of the reply."""
        start = self.renderer.tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}],
            chat_template=self.renderer.template,
            add_generation_prompt=True,
            tokenize=False,
            **TEMPLATE_ARGUMENTS,
        )
        head, whole = self.renderer.encode(start), self.renderer.encode(start + answer)
        return whole[len(head) :] if whole[: len(head)] == head else self.renderer.encode(answer)

    @torch.no_grad()
    def _judged(self, prompts: Sequence[Sequence[int]]) -> list[Opinion]:
        ids, mask = padded(prompts, self._pad, left=True, device=self.model.device)
        read = self._forward(ids, mask, keep=1)
        logprobs: dict[Ids, np.ndarray] = {(): _logprobs(read.logits[:, -1])}
        for path in filter(None, self.answers.paths):
            logits = self._continued(path, mask, read)
            logprobs |= {path[:end]: _logprobs(logits[:, end - 1]) for end in range(1, len(path) + 1)}
        return self.answers.opinions(logprobs)

    def _continued(self, path: Ids, mask: Tensor, read: Any) -> Tensor:
        """Logits after each token of `path`, [rows, tokens, vocabulary]; the cache itself stays unchanged."""
        ids = torch.tensor(path, device=mask.device).expand(len(mask), -1)
        longer, name = torch.cat([mask, torch.ones_like(ids)], dim=1), cache_name(read)
        return self._forward(ids, longer, keep=len(path), **{name: copy.deepcopy(read[name])}).logits

    def _forward(self, ids: Tensor, mask: Tensor, keep: int, **cache: Any) -> Any:
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        optional = {"position_ids": positions, "logits_to_keep": keep}
        accepted = {name: value for name, value in optional.items() if name in self._accepted}
        with evaluating(self.model.modules()):
            return self.model(input_ids=ids, attention_mask=mask, use_cache=True, **cache, **accepted)


def _logprobs(logits: Tensor) -> np.ndarray:
    return torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
