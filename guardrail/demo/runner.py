# pyright: basic
"""Runs the demo model in batches: replies (plain or steered), and residual-stream states by layer.

Row l of the states is the raw output of the l-th decoder block, row 0 the embeddings.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from guardrail.demo import MODEL
from guardrail.demo.generator import Chat, Conversation
from guardrail.demo.tasks import Task
from guardrail.demo.tokenizer import END, PAD, START, load_tokenizer, token_id
from guardrail.engines import Site
from guardrail.engines.activations import TransformersActivations
from guardrail.engines.blocks import decoder_blocks
from guardrail.engines.fingerprint import fingerprint
from guardrail.types import Array, Fingerprint, Steering

BATCH = 128


@dataclass(frozen=True, slots=True)
class Generated:
    """One reply: its text, its tokens (with the end token, if any), and whether it ended by itself."""

    text: str
    ids: tuple[int, ...]
    ended: bool


class Runner:
    """The demo model in float32 with its tokenizer."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model: Any = model.eval()
        self.tokenizer = tokenizer
        self._activations = TransformersActivations(model, decoder_blocks(model), RLock())
        self._pad = token_id(tokenizer, PAD)
        self._end = token_id(tokenizer, END)

    @classmethod
    def load(cls, folder: Path = MODEL) -> Self:
        """The model of a folder."""
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model, load_tokenizer(folder))

    @property
    def layers(self) -> int:
        """The number of decoder blocks."""
        return len(self.model.model.layers)

    def fingerprint(self) -> Fingerprint:
        """What ties vectors to this model."""
        return fingerprint(self.model, self.tokenizer, str(self.tokenizer.chat_template), {})

    def encode(self, messages: Chat) -> list[int]:
        """The ids of a prompt, up to and including the token after which the reply begins."""
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self._ids(str(text))

    @torch.inference_mode()
    def replies(
        self,
        prompts: Sequence[Chat],
        *,
        seed: int,
        temperature: float = 1.0,
        steering: Sequence[Steering] = (),
    ) -> list[Generated]:
        """A sampled reply to each prompt (greedy at temperature 0), steered if asked."""
        torch.manual_seed(seed)
        encoded = [self.encode(messages) for messages in prompts]
        results: dict[int, Generated] = {}
        for chunk in _chunks(encoded):
            with steered(self.model, steering):
                ids, mask = self._padded([encoded[i] for i in chunk], left=True)
                sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
                output = self.model.generate(ids, attention_mask=mask, max_new_tokens=96, **sampling)
            for i, row in zip(chunk, output[:, ids.shape[1] :].tolist(), strict=True):
                results[i] = self._generated(row)
        return [results[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def answers(self, drawn: Sequence[Task]) -> list[str]:
        """The greedy answer to each task, at most 16 tokens."""
        encoded = [self._encode_task(task) for task in drawn]
        results: dict[int, str] = {}
        for chunk in _chunks(encoded):
            ids, mask = self._padded([encoded[i] for i in chunk], left=True)
            output = self.model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False)
            for i, row in zip(chunk, output[:, ids.shape[1] :].tolist(), strict=True):
                results[i] = self._generated(row).text
        return [results[i] for i in range(len(drawn))]

    @torch.inference_mode()
    def chosen(self, drawn: Sequence[Task]) -> list[str]:
        """The option of each multiple choice whose text has the highest log-probability as the answer."""
        rows = [
            (i, option, self._encode_task(task), self._ids(f"{option}{END}"))
            for i, task in enumerate(drawn)
            for option in task.options
        ]
        scores = self._log_probabilities([(prompt, answer) for _, _, prompt, answer in rows])
        best: dict[int, tuple[float, str]] = {}
        for (i, option, _, _), score in zip(rows, scores, strict=True):
            best[i] = max(best.get(i, (score, option)), (score, option))
        return [best[i][1] for i in range(len(drawn))]

    def _log_probabilities(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of the second ids after the first."""
        whole = [[*prompt, *answer] for prompt, answer in rows]
        results: dict[int, float] = {}
        for chunk in _chunks(whole):
            ids, mask = self._padded([whole[i] for i in chunk], left=False)
            logs = self.model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
            for i, row in zip(chunk, logs, strict=True):
                first, last = len(rows[i][0]), len(whole[i])
                steps = row[first - 1 : last - 1].gather(1, torch.tensor(whole[i][first:])[:, None])
                results[i] = float(steps.sum())
        return [results[i] for i in range(len(rows))]

    def _encode_task(self, task: Task) -> list[int]:
        if task.messages is not None:
            return self.encode(task.messages)
        return self._ids(f"{START}{task.raw}")

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.inference_mode()
    def prompt_states(self, prompts: Sequence[Chat]) -> Array:
        """[prompts, L + 1, d_model]: the last prompt token."""
        encoded = [self.encode(messages) for messages in prompts]
        states = np.empty((len(encoded), self.layers + 1, self.model.config.hidden_size), np.float32)
        for chunk in _chunks(encoded):
            rows = [encoded[i] for i in chunk]
            hidden = self._states(rows)
            last = torch.tensor([len(row) - 1 for row in rows])
            states[chunk] = hidden[torch.arange(len(rows)), :, last].numpy()
        return states

    def states_of(self, drawn: Sequence[Conversation]) -> Array:
        """[prompts, L + 1, d_model]: the last prompt token of each conversation."""
        return self.prompt_states([conversation.messages for conversation in drawn])

    @torch.inference_mode()
    def token_states(
        self, prompts: Sequence[Chat], replies: Sequence[Generated], *, prompt_too: bool = False
    ) -> list[Array]:
        """[tokens, L + 1, d_model] for each prompt: the tokens of its reply, or of prompt and reply."""
        starts = [self.encode(messages) for messages in prompts]
        rows = [[*start, *reply.ids] for start, reply in zip(starts, replies, strict=True)]
        results: dict[int, Array] = {}
        for chunk in _chunks(rows):
            hidden = self._states([rows[i] for i in chunk])
            for i, row in zip(chunk, hidden, strict=True):
                first = 0 if prompt_too else len(starts[i])
                results[i] = row[:, first : len(rows[i])].transpose(0, 1).numpy()
        return [results[i] for i in range(len(rows))]

    def _states(self, rows: list[list[int]]) -> Tensor:
        """[rows, L + 1, tokens, d_model], right-padded."""
        ids, mask = self._padded(rows, left=False)
        sites = [Site(layer) for layer in range(self.layers + 1)]
        found = self._activations.read(ids, mask, sites, "all")
        return torch.stack([found[site] for site in sites], dim=1)

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place] = torch.tensor(row)
            mask[i, place] = 1
        return ids, mask

    def _generated(self, row: list[int]) -> Generated:
        ended = self._end in row
        ids = row[: row.index(self._end) + 1] if ended else row
        return Generated(str(self.tokenizer.decode(ids, skip_special_tokens=True)), tuple(ids), ended)


@contextmanager
def steered(model: LlamaForCausalLM, steering: Sequence[Steering]) -> Iterator[None]:
    """Applies steering on the last prompt position and all later ones, as the guard does."""
    with ExitStack() as stack:
        for one in steering:
            for i, layer in enumerate(one.layers):
                hook = model.model.layers[layer - 1].register_forward_hook(_change(one, i))
                stack.callback(hook.remove)
        yield


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def _change(steering: Steering, index: int) -> Hook:
    direction = torch.from_numpy(steering.directions[index])

    def change(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        here = output[:, -1:]
        if steering.operator == "add":
            moved = here + direction
        else:
            along = (here @ direction)[..., None]
            limit = steering.limits[index] if steering.operator == "cap" else 0.0
            excess = (along - limit).clamp(min=0.0) if steering.operator == "cap" else along
            moved = here - excess * direction
        return torch.cat([output[:, :-1], moved], dim=1)

    return change


def _chunks(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]
