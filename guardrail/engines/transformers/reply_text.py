"""The text of a reply, token by token: where it ends, and what of it may be handed out already."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from guardrail.engines.marks import begun
from guardrail.types import Finish, TokenLogprob

UNFINISHED = "\ufffd"
"""What a tokenizer writes for bytes that are not a character yet."""


@dataclass(frozen=True)
class Ending:
    """What ends a reply, and how its tokens are read. `stops` are texts; `ends` are token ids."""

    tokenizer: Any
    ends: frozenset[int]
    stops: tuple[str, ...] = ()
    special_tokens: bool = False

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens of a reply, without those that end it."""
        kept = [token for token in ids if token not in self.ends]
        return self.tokenizer.decode(kept, skip_special_tokens=not self.special_tokens)

    def reply(self, ids: Sequence[int]) -> tuple[Sequence[int], str, Finish]:
        """A reply's own tokens, its text, and why it ended. After a stop text there may be padding."""
        kept = ids[: self.tokens(ids)]
        text = self.decode(kept)
        ended = self.first_stop(text) is not None or (bool(kept) and kept[-1] in self.ends)
        return kept, self.cut(text), "stop" if ended else "length"

    def first_stop(self, text: str) -> int | None:
        """Where the first stop text begins."""
        return min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=None)

    def cut(self, text: str) -> str:
        """The text up to the first stop text."""
        return text[: self.first_stop(text)]

    def tokens(self, ids: Sequence[int]) -> int:
        """How many tokens there are up to and with the one that completes a stop text."""
        if not self._stopped(ids):
            return len(ids)
        counts = range(len(ids) + 1)
        return bisect_left(counts, True, key=lambda count: self._stopped(ids[:count]))

    def _stopped(self, ids: Sequence[int]) -> bool:
        return self.first_stop(self.decode(ids)) is not None

    def begun(self, text: str) -> int:
        """How many of the last characters could be the beginning of a stop text."""
        return begun(text, self.stops)


class StopTexts(StoppingCriteria):
    """Ends each reply whose text holds a stop text. `width`: the columns before the replies."""

    def __init__(self, ending: Ending, width: int) -> None:
        self._ending, self._width = ending, width
        # a character takes up to four tokens, and the last token may hold more than the end of the stop
        self._reach = 4 * max(map(len, ending.stops)) + 4

    def __call__(self, input_ids: Tensor, scores: object = None, **_: object) -> Any:
        """[rows] bool, for ids [rows, tokens]."""
        tails = input_ids[:, self._width :][:, -self._reach :].tolist()
        found = [self._ending.first_stop(self._ending.decode(tail)) is not None for tail in tails]
        return torch.tensor(found, dtype=torch.bool, device=input_ids.device)


class ReplyText:
    """One reply while it is generated.

    Nothing is handed out of a character that is incomplete, nor of what may become a stop text. `take` is
    called with what may be handed out: text, and the log probabilities of the tokens that are wholly in it.
    """

    def __init__(self, ending: Ending, take: Callable[[str, tuple[TokenLogprob, ...]], None]) -> None:
        self._ending, self._take = ending, take
        self._ids: list[int] = []
        # tokens from `_from` on are decoded together, those up to `_read` are in the text
        self._from = self._read = 0
        self._held, self._length, self._out = "", 0, 0
        self._waiting: list[tuple[int, TokenLogprob]] = []
        self._over = False

    def put(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """The next token. After the end there may be padding, which is nothing of the reply."""
        if self._over:
            return
        if token in self._ending.ends:
            self.end()
            return
        self._ids.append(token)
        self._grow(self._decoded())
        if logprob is not None:
            # a token that is part of a character goes with it
            unfinished = self._read < len(self._ids)
            self._waiting.append((self._length + unfinished, logprob))
        self._hand_out(self._ending.begun(self._held))

    def end(self) -> None:
        """No token follows: hand out the rest."""
        if not self._over:
            self._grow(self._decoded(last=True))
            self._hand_out(0)
        self._over = True

    def _decoded(self, last: bool = False) -> str:
        before = self._ending.decode(self._ids[self._from : self._read])
        whole = self._ending.decode(self._ids[self._from :])
        if not last and whole.endswith(UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return whole[len(before) :]

    def _grow(self, text: str) -> None:
        self._held += text
        self._length += len(text)

    def _hand_out(self, keep: int) -> None:
        """Hand out all but the last `keep` characters, and nothing from a stop text on."""
        stop = self._ending.first_stop(self._held)
        self._over = self._over or stop is not None
        end = len(self._held) - keep if stop is None else stop
        text, self._held = self._held[:end], self._held[end:]
        self._out += len(text)
        ready = tuple(logprob for until, logprob in self._waiting if until <= self._out)
        self._waiting = self._waiting[len(ready) :]
        if text or ready:
            self._take(text, ready)
