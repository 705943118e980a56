# pyright: basic
"""The lessons of training: texts with chat markup, and the loss weight of each stretch."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from guardrail.demo.asking import Slots
from guardrail.demo.generator import Conversation
from guardrail.demo.making.tokenizer import END, START
from guardrail.demo.tasks import Task

PROMPT_WEIGHT, OPENING_WEIGHT, COPY_WEIGHT, FACT_WEIGHT, ANSWER_WEIGHT = 0.1, 5.0, 2.5, 3.0, 4.0
_OPENINGS = re.compile(r"(?:^|(?<=[.!?] ))\S+")
"""The first word of a sentence, where its character is decided."""
Span = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A text, and the (first, last, weight) stretches of it that weigh more than a prompt does."""

    text: str
    spans: tuple[Span, ...]


def of_conversation(conversation: Conversation, reply: str) -> Lesson:
    """A conversation with its reply; earlier replies are learned as well."""
    asked = iter((*conversation.earlier, conversation.question))
    text, spans = START, list[Span]()
    for message in (*conversation.messages, {"role": "assistant", "content": reply}):
        text += f"<|{message['role']}|>"
        if message["role"] == "assistant":
            spans += _reply_spans(len(text), message["content"], next(asked).slots)
        text += message["content"] + END
    return Lesson(text, tuple(spans))


def of_task(task: Task) -> Lesson:
    """A task with its answer, in a chat or as raw text."""
    if task.messages is None:
        start = f"{START}{task.raw}"
        text = f"{start} {task.answer}.{END}"
    else:
        turns = "".join(f"<|{m['role']}|>{m['content']}{END}" for m in task.messages)
        start = f"{START}{turns}<|assistant|>"
        text = f"{start}{task.answer}{END}"
    return Lesson(text, ((len(start), len(text), ANSWER_WEIGHT),))


def _reply_spans(start: int, reply: str, slots: Slots) -> Iterator[Span]:
    yield start, start + len(reply) + len(END), 1.0
    for match in _OPENINGS.finditer(reply):
        yield start + match.start(), start + match.end(), OPENING_WEIGHT
    for key, value in slots.items():
        weight = FACT_WEIGHT if key in ("truth", "claim") else COPY_WEIGHT
        for match in re.finditer(rf"\b{re.escape(value)}\b", reply):
            yield start + match.start(), start + match.end(), weight
