"""Messages to token ids by the model's own chat template. The tokenizer is read, never changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from guardrail.engines import Prompt, Span
from guardrail.engines.transformers.turn_marks import TOOL, TOOL_NAME, Shape, marked, missing, shape
from guardrail.engines.transformers.turn_spans import WHOLE, spans
from guardrail.errors import ModelError, PromptError
from guardrail.types import Message, Position

Tool: TypeAlias = Mapping[str, Any]
PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class Renderer:
    """A chat template with its arguments, applied to conversations.

    `template`: None for the tokenizer's own, `builtin:plain`, the path of a Jinja file, or Jinja text.
    Raises ModelError if there is none.
    """

    def __init__(
        self, tokenizer: Any, template: str | None = None, arguments: Mapping[str, object] | None = None
    ) -> None:
        if tokenizer is None:
            raise ModelError("a tokenizer is needed to render conversations")
        self.tokenizer = tokenizer
        self.template = self._resolve(template)
        self.arguments = dict(arguments or {})
        # what a template leaves out hangs on who speaks when: one look at each form of conversation is enough
        self._left_out = lru_cache(1024)(self._probe)

    def _resolve(self, template: str | None) -> str:
        if template == "builtin:plain":
            return PLAIN
        if template is not None:
            return Path(template).read_text(encoding="utf-8") if "{" not in template else template
        own = getattr(self.tokenizer, "chat_template", None)
        if not own:
            raise ModelError(
                "the tokenizer has no chat template; give one: chat_template='builtin:plain' or a Jinja file"
            )
        return own if isinstance(own, str) else own["default"]

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        positions: Collection[Position] = (),
    ) -> Prompt:
        """The prompt up to where the reply begins. A last turn of the assistant is continued.

        `Prompt.unread` says what the template leaves out. Raises PromptError if it refuses the messages, or
        does not know tools, and if the tokens of one of the `positions` cannot be found.
        """
        text = self._text(messages, tools)
        encoded = self._encoded(text, offsets=any(position not in WHOLE for position in positions))
        ids = tuple(encoded["input_ids"])
        if not ids:
            raise PromptError("the prompt is empty")
        unread = self._left_out(shape(messages), bool(tools))
        offsets: Sequence[Span] = encoded.get("offset_mapping", [(0, 0)] * len(ids))
        try:
            found = spans(positions, messages, offsets, text, lambda turns: self._text(turns, tools))
        except PromptError:
            if unread is None:
                raise
            # policies say what happens to turns that are left out
            found = {}
        return Prompt(ids, unread, found)

    def _encoded(self, text: str, *, offsets: bool) -> Mapping[str, Any]:
        """Ids, and the characters of each. Raises ModelError for a tokenizer that cannot tell those."""
        if offsets and not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(self.tokenizer).__name__} does not tell which characters a token stands for, so that "
                "the text of one turn cannot be found; load a fast tokenizer"
            )
        extra = {"return_offsets_mapping": True} if offsets else {}
        return self.tokenizer(text, add_special_tokens=False, **extra)

    def _text(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        continues = messages[-1].role == "assistant"
        try:
            return self.tokenizer.apply_chat_template(
                [for_template(message) for message in messages],
                tools=list(tools) or None,
                chat_template=self.template,
                add_generation_prompt=not continues,
                continue_final_message=continues,
                tokenize=False,
                **self.arguments,
            )
        except Exception as error:  # a template raises whatever Jinja raises
            raise PromptError(f"the chat template refuses these messages: {error}") from error

    def _probe(self, turns: Shape, tools: bool) -> str | None:
        text = self._text(marked(turns), [TOOL] if tools else [])
        if tools and TOOL_NAME not in text:
            raise PromptError("the chat template of this model does not know `tools`")
        return missing(turns, text)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def for_template(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: the arguments of tool calls are objects, not JSON text."""
    found: dict[str, Any] = message.as_dict()
    for call in found.get("tool_calls", ()):
        call["function"]["arguments"] = _parsed(call["function"]["arguments"])
    return found


def _parsed(arguments: str) -> Any:
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        # a model may have written anything; the template then shows it as text
        return arguments
    return found if isinstance(found, dict) else arguments
