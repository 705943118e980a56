# pyright: basic
"""The demo model as its evaluation uses it: a `Subject` that also answers closed tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from guardrail.demo import MODEL
from guardrail.demo.generator import Chat, Conversation
from guardrail.demo.making.tokenizer import END, START
from guardrail.demo.tasks import Task
from guardrail.engines import Continuation
from guardrail.engines.transformers.batches import bucketed, padded
from guardrail.extract.subject import Subject
from guardrail.types import Array, Message, Role

NEW_TOKENS = 96
ROWS = 128


class Runner:
    """A demo model in float32."""

    def __init__(self, folder: Path = MODEL) -> None:
        self.subject = Subject.load(str(folder), rows=ROWS)
        self.model, self.tokenizer = self.subject.model, self.subject.tokenizer

    def replies(
        self, drawn: Sequence[Conversation], *, seed: int, temperature: float = 1.0
    ) -> list[Continuation]:
        """A reply to each conversation, greedy at temperature 0."""
        return self.answered([c.messages for c in drawn], seed=seed, temperature=temperature)

    def answered(self, chats: Sequence[Chat], *, seed: int, temperature: float) -> list[Continuation]:
        """A reply to each list of messages."""
        seeds = [seed * 1_000_003 + i for i in range(len(chats))]
        prompts = [_messages(chat) for chat in chats]
        return self.subject.replies(prompts, seeds=seeds, max_new_tokens=NEW_TOKENS, temperature=temperature)

    def states(self, drawn: Sequence[Conversation]) -> Array:
        """[prompts, L + 1, d_model]: the last prompt token of each conversation."""
        return self.subject.prompt_states([_messages(c.messages) for c in drawn])

    def ids(self, drawn: Conversation) -> list[int]:
        """The prompt's tokens."""
        return list(self.subject.render(_messages(drawn.messages)).ids)

    @torch.inference_mode()
    def answers(self, drawn: Sequence[Task]) -> list[str]:
        """The greedy answer to each task, at most 16 tokens."""
        rows, results = [self._encoded(task) for task in drawn], dict[int, str]()
        for batch in bucketed([len(row) for row in rows], ROWS):
            ids, mask = self._padded([rows[i] for i in batch], left=True)
            output = self.model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False)
            texts = self.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
            results |= zip(batch, texts, strict=True)
        return [results[i] for i in range(len(rows))]

    def chosen(self, drawn: Sequence[Task]) -> list[str]:
        """The option of each multiple choice whose text has the highest log-probability as the answer."""
        asked = [(task, option) for task in drawn for option in task.options]
        pairs = [(self._encoded(task), self._ids(f"{option}{END}")) for task, option in asked]
        scores = iter(zip(self._log_probabilities(pairs), (option for _, option in asked), strict=True))
        return [max(next(scores) for _ in task.options)[1] for task in drawn]

    @torch.inference_mode()
    def _log_probabilities(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Of the second ids after the first."""
        whole, results = [[*prompt, *answer] for prompt, answer in pairs], dict[int, float]()
        for batch in bucketed([len(row) for row in whole], ROWS):
            ids, mask = self._padded([whole[i] for i in batch], left=False)
            logs = self.model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
            for i, row in zip(batch, logs, strict=True):
                first, last = len(pairs[i][0]), len(whole[i])
                steps = row[first - 1 : last - 1].gather(1, ids.new_tensor(whole[i][first:])[:, None])
                results[i] = float(steps.sum())
        return [results[i] for i in range(len(pairs))]

    def _encoded(self, task: Task) -> list[int]:
        if task.messages is None:
            return self._ids(f"{START}{task.raw}")
        return list(self.subject.render(_messages(task.messages)).ids)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return padded(rows, self.tokenizer.pad_token_id, left=left, device=self.subject.device)


def _messages(chat: Chat) -> tuple[Message, ...]:
    return tuple(Message(cast(Role, m["role"]), m["content"]) for m in chat)
