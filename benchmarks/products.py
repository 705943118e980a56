"""The whole product: `Guard.chat` and `Guard.check`, from messages to text, against the same by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.subjects import Subject
from guardrail import Guard
from guardrail.bench.cases import Case
from guardrail.bench.plans import ALWAYS, NEVER
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.engines.transformers.rendering import Renderer
from guardrail.testing import hand_made_vectors

SHIPPED = "Guard.chat, policies/chatbot.yaml, allow"
QUESTION = "What is your advice if my sister broke my phone?"
MESSAGES = ({"role": "user", "content": QUESTION},)
STEER = {"steer": {"operator": "add", "coefficient": -0.1}}


def product_cases(subject: Subject) -> Iterator[Case]:
    """chat that passes, is blocked, is steered; and check. Each has a guard of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for name, threshold, action in (
            ("allow", NEVER, "block"),
            ("block", ALWAYS, "block"),
            ("steer one layer", ALWAYS, STEER),
        ):
            with made_up(subject, folder, threshold, action) as guard:
                yield chat(subject, guard, f"Guard.chat, {name}", name == "allow")
                if name == "allow":
                    yield check(subject, guard)


def shipped_cases(subject: Subject) -> Iterator[Case]:
    """The built-in model under `policies/chatbot.yaml`, with a prompt that passes."""
    with Guard(subject.model, subject.tokenizer, _shipped()) as guard:
        yield chat(subject, guard, SHIPPED, True)


def _shipped() -> Path:
    from guardrail.policy.loading import shipped_policies

    return shipped_policies()["chatbot"]


def made_up(subject: Subject, folder: Path, threshold: float, action: object) -> Guard:
    """A guard with one policy on a made-up vector at the middle layer, and no audit sink."""
    tokenizer = subject.tokenizer
    of = fingerprint(subject.model, tokenizer, Renderer(tokenizer).template, {})
    path = folder / "vectors.safetensors"
    hand_made_vectors(("evil",), of).save(path)
    rule = {"id": "p0", "trait": "evil", "layer": subject.layers[-1], "action": action}
    policies = [rule | {"threshold": {"raw": threshold}}]
    return Guard(subject.model, tokenizer, {"version": 1, "vectors": str(path), "policies": policies})


def chat(subject: Subject, guard: Guard, name: str, same: bool) -> Case:
    """A whole reply. `same` says that the reply is to be the bare model's."""

    def reply() -> Any:
        return guard.chat(MESSAGES, max_new_tokens=subject.new_tokens, temperature=0)

    def holds(reply: Any, expected: str) -> bool:
        return reply.decision.status == "evaluated" and (not same or reply.text == expected)

    return Case(name=name, guarded=reply, bare=by_hand(subject), holds=holds)


def check(subject: Subject, guard: Guard) -> Case:
    """A decision, against rendering the prompt and running its forward pass."""
    return Case(
        name="Guard.check",
        guarded=lambda: guard.check(MESSAGES),
        bare=forward_by_hand(subject),
        holds=lambda result, expected: result.decision.status == "evaluated",
    )


def by_hand(subject: Subject) -> Callable[[], str]:
    """Template, `generate`, decode: what a program without a guard does."""

    def reply() -> str:
        inputs = _rendered(subject)
        output = subject.bare.generate(**inputs, max_new_tokens=subject.new_tokens, do_sample=False)
        return subject.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return reply


def forward_by_hand(subject: Subject) -> Callable[[], object]:
    """Template and prefill."""

    def prefill() -> object:
        with torch.no_grad():
            return subject.bare(**_rendered(subject), use_cache=True, logits_to_keep=1)

    return prefill


def _rendered(subject: Subject) -> Any:
    return subject.tokenizer.apply_chat_template(
        list(MESSAGES), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
