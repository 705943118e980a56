"""What the guided tour does: six prompts through one guard, each compared with the bare model's reply."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from guardrail.actions.review_queue import PATH_VARIABLE
from guardrail.demo.prompts import TOUR, TourPrompt
from guardrail.files import json_text
from guardrail.files.decision_rows import decision_rows
from guardrail.files.records import Json, messages_from_json
from guardrail.pipeline.installation import UnguardedWarning
from guardrail.plugins.pack import TOUR as PACK_TOUR
from guardrail.types import Decision, Reply

if TYPE_CHECKING:
    from guardrail import Guard

SEED = 0
MAX_NEW_TOKENS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One prompt of the tour: expected and actual decisions, and the replies with and without a guard."""

    prompt: TourPrompt
    reply: Reply
    unguarded: str
    outcome: str
    """The last decision's action, or its `otherwise` if that was one rephrasing too many."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The first decision, and those on the prompts that were asked instead."""
        return (*self.reply.earlier, self.reply.decision)

    @property
    def first(self) -> Decision:
        """The decision on the prompt as the user wrote it."""
        return self.decisions[0]

    @property
    def decided(self) -> tuple[str, ...]:
        """What was done, in order: the actions on earlier prompts, and the outcome."""
        return (*(decision.action for decision in self.reply.earlier), self.outcome)

    @property
    def as_expected(self) -> bool:
        """Whether the first action is the expected one, and a prompt that was asked again was answered."""
        return self.first.action == self.prompt.expected and not (
            self.reply.earlier and self.reply.decision.stops
        )

    def row(self) -> Json:
        """The JSON of one stop, with decisions as in `check --json`."""
        reply = self.reply
        return {
            "name": self.prompt.name,
            "shows": self.prompt.shows,
            "messages": self.prompt.messages,
            "expected": self.prompt.expected,
            "decided": self.decided,
            "as_expected": self.as_expected,
            "decisions": decision_rows(reply),
            "reply": reply.text,
            "unguarded": self.unguarded,
            "steered_passes": reply.steered_passes,
            "ticket_id": reply.ticket_id,
        }


def prompts_for(guard: Guard) -> Sequence[TourPrompt]:
    """The tour of the pack that the policies use, else that of the built-in model. Raises PluginError."""
    pack = guard.active.pack
    if pack is None or PACK_TOUR not in pack.card.files:
        return TOUR
    try:
        return json_text.validated(tuple[TourPrompt, ...], json_text.read(pack.file(PACK_TOUR)))
    except ValueError as error:
        raise pack.damaged(f"{PACK_TOUR}: {error}") from error


def stops(guard: Guard, prompts: Sequence[TourPrompt] = TOUR) -> Iterator[Stop]:
    """Answer the tour's prompts, after a warm-up that keeps the cold start out of the times."""
    guard.chat([{"role": "user", "content": "Hello."}], max_new_tokens=4)
    for prompt in prompts:
        bare = unguarded(guard, prompt)
        reply = guard.chat(prompt.messages, seed=SEED, max_new_tokens=MAX_NEW_TOKENS)
        yield Stop(prompt=prompt, reply=reply, unguarded=bare, outcome=_outcome(guard, reply.decision))


def _outcome(guard: Guard, decision: Decision) -> str:
    rule = guard.active.plan.rule(decision.policy)
    return rule.otherwise if rule and decision.action == "rephrase" else decision.action


def unguarded(guard: Guard, prompt: TourPrompt) -> str:
    """The bare model's reply, with the same seed."""
    import torch

    model, tokenizer = guard.model, guard.tokenizer
    rendered = guard.engine.render(messages_from_json(prompt.messages))
    ids = torch.tensor([rendered.ids], device=model.device)
    options = {"max_new_tokens": MAX_NEW_TOKENS, "pad_token_id": tokenizer.pad_token_id}
    with warnings.catch_warnings(), torch.random.fork_rng(), torch.no_grad():
        warnings.simplefilter("ignore", UnguardedWarning)  # which is what the tour wants to show
        torch.manual_seed(SEED)
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@contextmanager
def temporary_queue() -> Generator[bool]:
    """Put the tour's tickets into a temporary queue, unless the user has named one. Yields whether it did."""
    if os.environ.get(PATH_VARIABLE):
        yield False
        return
    with TemporaryDirectory(prefix="guardrail-") as folder:
        os.environ[PATH_VARIABLE] = os.path.join(folder, "queue.sqlite")
        try:
            yield True
        finally:
            del os.environ[PATH_VARIABLE]
