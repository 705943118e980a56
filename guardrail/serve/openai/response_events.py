"""The events of a streamed response, in the order that the OpenAI API has: numbered, items one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from guardrail.serve.openai.logprobs import Logprob
from guardrail.serve.openai.response_shapes import (
    CallItem,
    Item,
    MessageItem,
    Part,
    RefusalPart,
    ResponseObject,
    Status,
    TextPart,
)


class ResponseEvents:
    """Writes events, and keeps the items that they made. A message is begun by what is said in it."""

    def __init__(self, message: str) -> None:
        self.items: list[Item] = []
        self._id, self._count = message, 0
        self._part: Part | None = None

    def state(self, kind: str, response: ResponseObject) -> str:
        """How far the response is: `created`, `in_progress`, `completed`, `incomplete` or `failed`."""
        return self._event(f"response.{kind}", response=response.data())

    def error(self, code: str | None, message: str, param: str | None) -> str:
        """An error in the middle of a reply."""
        return self._event("error", code=code, message=message, param=param)

    def text(self, delta: str, logprobs: Sequence[Logprob]) -> Iterator[str]:
        """More of what the model says."""
        if not isinstance(part := self._part, TextPart):
            yield from self._begin(part := TextPart(text=""))
        part.text += delta
        part.logprobs = [*part.logprobs, *logprobs]
        found = [one.model_dump() for one in logprobs]
        yield self._of_part("output_text.delta", delta=delta, logprobs=found)

    def refusal(self, text: str) -> Iterator[str]:
        """What is said in the model's place."""
        yield from self._end_part()
        yield from self._begin(part := RefusalPart(refusal=""))
        part.refusal = text
        yield self._of_part("refusal.delta", delta=text)

    def end(self, status: Status) -> Iterator[str]:
        """The end of the message, if there is one."""
        yield from self._end_part()
        if self.items and isinstance(message := self.items[-1], MessageItem):
            message.status = status
            yield self._of_item("output_item.done", item=message.model_dump())

    def call(self, item: CallItem) -> Iterator[str]:
        """A call, at once: it was read when the reply was complete."""
        self.items.append(item)
        begun = item.model_copy(update={"status": "in_progress", "arguments": ""})
        yield self._of_item("output_item.added", item=begun.model_dump())
        where, name = {"item_id": item.id}, "function_call_arguments"
        yield self._of_item(f"{name}.delta", **where, delta=item.arguments)
        yield self._of_item(f"{name}.done", **where, name=item.name, arguments=item.arguments)
        yield self._of_item("output_item.done", item=item.model_dump())

    def _begin(self, part: Part) -> Iterator[str]:
        if not self.items:
            self.items.append(MessageItem(id=self._id, status="in_progress", content=[]))
            yield self._of_item("output_item.added", item=self.items[0].model_dump())
        self._message.content.append(part)
        self._part = part
        yield self._of_part("content_part.added", part=part.model_dump())

    def _end_part(self) -> Iterator[str]:
        if isinstance(part := self._part, TextPart):
            found = [one.model_dump() for one in part.logprobs]
            yield self._of_part("output_text.done", text=part.text, logprobs=found)
        elif part is not None:
            yield self._of_part("refusal.done", refusal=part.refusal)
        if part is not None:
            yield self._of_part("content_part.done", part=part.model_dump())
        self._part = None

    @property
    def _message(self) -> MessageItem:
        message = self.items[0]
        assert isinstance(message, MessageItem)
        return message

    def _of_part(self, kind: str, **fields: Any) -> str:
        index = len(self._message.content) - 1
        return self._of_item(kind, item_id=self._id, content_index=index, **fields)

    def _of_item(self, kind: str, **fields: Any) -> str:
        return self._event(f"response.{kind}", output_index=len(self.items) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> str:
        data = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
