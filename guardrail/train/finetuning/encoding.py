"""Conversations as token ids and labels, as the model will meet them when it replies.

The prompt before each reply and the reply with what the template puts after it are encoded apart and never as
one text, so that the border between them is where it is in generation. Needs no marks of generation in the
template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.engines.transformers.rendering import Renderer, for_template
from guardrail.errors import PromptError
from guardrail.train.finetuning.settings import Loss
from guardrail.types import Message

IGNORED = -100
"""The label of a token that is not trained on."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation. Labels are the ids where they are trained on, and IGNORED elsewhere."""

    ids: tuple[int, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)

    @property
    def trained(self) -> int:
        """How many tokens are trained on."""
        return sum(label != IGNORED for label in self.labels)


def encoded(renderer: Renderer, conversation: Sequence[Message], loss: Loss) -> Encoded:
    """Raises PromptError for a conversation that does not end in a reply, or that cannot be taken apart."""
    ids: list[int] = []
    labels: list[int] = []
    found = pieces(renderer, conversation)
    for place, (text, reply) in enumerate(found, 1):
        tokens = renderer.encode(text)
        ids += tokens
        trained = loss == "all" or (reply and (loss == "completion" or place == len(found)))
        labels += tokens if trained else [IGNORED] * len(tokens)
    return Encoded(tuple(ids), tuple(labels))


def pieces(renderer: Renderer, conversation: Sequence[Message]) -> list[tuple[str, bool]]:
    """The text of a conversation in parts, and whether each is a reply. Raises PromptError."""
    if not conversation or conversation[-1].role != "assistant":
        raise PromptError("the conversation does not end in a reply of the assistant")
    whole, done = rendered(renderer, conversation, False), 0
    found: list[tuple[str, bool]] = []
    for i, message in enumerate(conversation):
        if message.role != "assistant":
            continue
        start = len(_beginning(whole, rendered(renderer, conversation[:i], True), i))
        end = len(_beginning(whole, rendered(renderer, conversation[: i + 1], False), i))
        found += [(whole[done:start], False), (whole[start:end], True)]
        done = end
    return found


def rendered(renderer: Renderer, messages: Sequence[Message], asks: bool) -> str:
    """The text of messages; `asks`: up to where a reply begins. Raises PromptError if that fails."""
    try:
        return renderer.tokenizer.apply_chat_template(
            [for_template(message) for message in messages],
            chat_template=renderer.template,
            add_generation_prompt=asks,
            tokenize=False,
            **renderer.arguments,
        )
    except Exception as error:  # a template raises whatever Jinja raises
        raise PromptError(f"the chat template refuses these messages: {error}") from error


def _beginning(whole: str, text: str, turn: int) -> str:
    if not whole.startswith(text):
        raise PromptError(
            f"the chat template renders what stands before reply {turn + 1} otherwise when more follows; "
            "give `prompt` and `completion` with one reply"
        )
    return text
