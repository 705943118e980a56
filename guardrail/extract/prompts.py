"""The prompts of an extraction: with a trait, without it, without a system prompt, and the user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from guardrail.traits import TraitDefinition
from guardrail.types import Message

Kind: TypeAlias = Literal["positive", "negative", "neutral", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPrompt:
    """One prompt; `instruction` and `question` are indices in the definition, -1 if there is none.

    `role`, `role_index`: the role of its pair, if the definition has roles.
    """

    kind: Kind
    messages: tuple[Message, ...]
    instruction: int = -1
    question: int = -1
    role: str = ""
    role_index: int = -1

    @property
    def cluster(self) -> int:
        """The unit that is resampled, because replies within it are alike: the role, or else the question."""
        return self.role_index if self.role else self.question

    @property
    def asked(self) -> str:
        """The question for the judge: the last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def key(self) -> str:
        """Identifies the prompt within its pool. The seeds of its samples depend on it."""
        return f"{self.kind}/{self.instruction}/{self.question}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPrompts:
    """How to make a system prompt of an instruction: a template with `{trait}` and `{instruction}`.

    By default the instruction itself. The paper's code puts a sentence before it, `You are an evil
    assistant. {instruction}` on the positive side and the antonym or `a helpful assistant` on the other
    (arXiv 2507.21509, A.1). The trait's name does not give the adjective, so the user must write it.
    """

    positive: str = "{instruction}"
    negative: str = "{instruction}"

    def filled(self, kind: Literal["positive", "negative"], trait: str, instruction: str) -> str:
        """The system prompt; other braces stay unchanged."""
        template = self.positive if kind == "positive" else self.negative
        return template.replace("{trait}", trait).replace("{instruction}", instruction)


AS_WRITTEN = SystemPrompts()


def trait_prompts(
    definition: TraitDefinition, systems: SystemPrompts = AS_WRITTEN, *, held_out: bool = False
) -> list[RolloutPrompt]:
    """Every instruction of both sides with every question, then the questions alone.

    Extraction questions, or evaluation questions if `held_out`. The neutral side has no system message, but
    keeps what the chat template adds by itself.
    """
    questions = definition.evaluation if held_out else definition.extraction
    prompts: list[RolloutPrompt] = []
    for kind in ("positive", "negative"):
        for i, pair in enumerate(definition.pairs(held_out=held_out)):
            system = systems.filled(kind, definition.name, getattr(pair, kind))
            turns = (Message("system", system),) if system.strip() else ()
            prompts += [
                RolloutPrompt(
                    kind=kind,
                    messages=(*turns, Message("user", definition.asked(question, kind))),
                    instruction=i,
                    question=j,
                    **_role(definition, i),
                )
                for j, question in enumerate(questions)
            ]
    return prompts + [
        RolloutPrompt(kind="neutral", messages=(Message("user", q),), question=j, **_role(definition, j))
        for j, q in enumerate(questions)
    ]


def _role(definition: TraitDefinition, i: int) -> dict[str, Any]:
    """The role of an instruction pair; plain questions take turns."""
    if not definition.roles:
        return {}
    role = definition.roles[i % len(definition.roles)]
    return {"role": role, "role_index": tuple(dict.fromkeys(definition.roles)).index(role)}


def mixed_prompts(conversations: Sequence[Sequence[Message]]) -> list[RolloutPrompt]:
    """The user's own prompts, which may or may not show a trait."""
    return [
        RolloutPrompt(kind="mixed", messages=tuple(messages), question=i)
        for i, messages in enumerate(conversations)
    ]


def prompts_sha256(prompts: Sequence[RolloutPrompt]) -> str:
    """Identifies the prompts, including their order and kinds."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps([prompt.key, [m.as_dict() for m in prompt.messages]]).encode() + b"\n")
    return digest.hexdigest()
