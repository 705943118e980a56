"""Messages to token ids by the model's own chat template. The tokenizer is read, never changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from guardrail.engines import Prompt, Span
from guardrail.engines.transformers.frames import CALLS, RESULT, UNKNOWN, USER, Frames
from guardrail.engines.transformers.turn_marks import TOOL, TOOL_NAME, Shape, marked, missing, shape
from guardrail.engines.transformers.turn_spans import NO_TEXT, WHOLE, spans, tokens_within, whole
from guardrail.errors import ModelError, PromptError
from guardrail.types import Message, Position, RawPrompt

Tool: TypeAlias = Mapping[str, Any]
SAMPLES: Mapping[Position, Shape] = {"user_mean": (USER,), "tool_mean": (USER, CALLS, RESULT)}
"""The shortest conversations that have something to read at a position."""
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
                "the tokenizer has no chat template; give one: chat_template='builtin:plain' "
                "(--chat-template) or a Jinja file"
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
        unread = self.left_out(messages, tools)
        try:
            return replace(self._find(messages, tools, positions), unread=unread)
        except PromptError:
            if unread is None or not positions:
                raise
            # policies say what happens to turns that are left out
            return replace(self._find(messages, tools, ()), unread=unread)

    def left_out(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> str | None:
        """What the template leaves out of such messages. Raises PromptError as `render`."""
        return self._left_out(shape(messages), bool(tools))

    def _find(
        self, messages: Sequence[Message], tools: Sequence[Tool], positions: Collection[Position]
    ) -> Prompt:
        text = self._text(messages, tools)
        encoded = self._encoded(text, offsets=any(position not in WHOLE for position in positions))
        ids = tuple(encoded["input_ids"])
        if not ids:
            raise PromptError("the prompt is empty")
        offsets: Sequence[Span] = encoded.get("offset_mapping", [(0, 0)] * len(ids))
        found = spans(positions, messages, offsets, text, lambda turns: self._text(turns, tools))
        return Prompt(ids, spans=found)

    def raw(self, prompt: RawPrompt, vocabulary: int, positions: Collection[Position] = ()) -> Prompt:
        """The prompt of a text without a template. `vocabulary`: how many ids the model knows.

        Raises PromptError for a text without tokens, for other ids, and as `spans_in`.
        """
        ids = self.tokenizer(prompt.text)["input_ids"] if prompt.ids is None else prompt.ids
        if not ids:
            raise PromptError("the prompt is empty")
        if wrong := [one for one in ids if not 0 <= one < vocabulary]:
            raise PromptError(f"the prompt has the token {wrong[0]}; the model knows 0 to {vocabulary - 1}")
        return Prompt(tuple(ids), spans=self.spans_in(ids, positions))

    def check(self, positions: Collection[Position]) -> None:
        """Raises ModelError if template or tokenizer make it impossible to find a position's tokens."""
        for position, turns in SAMPLES.items():
            if position not in positions:
                continue
            try:
                self._find(marked(turns), (), [position])
            except PromptError as error:
                raise ModelError(f"`{position}` cannot be read with this chat template: {error}") from error

    def spans_in(
        self, ids: Sequence[int], positions: Collection[Position]
    ) -> dict[Position, tuple[Span, ...]]:
        """The spans of positions in ids whose messages are unknown.

        Raises PromptError if they cannot be found. Tool results never are: other turns may look like them.
        """
        found: dict[Position, tuple[Span, ...]] = {
            position: whole(position, len(ids)) for position in positions if position in WHOLE
        }
        if "tool_mean" in positions:
            raise PromptError("tool results cannot be found in token ids; give messages to `chat` or `check`")
        if "user_mean" in positions:
            found["user_mean"] = (self._user_span(ids),)
        return found

    def _user_span(self, ids: Sequence[int]) -> Span:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        encoded = self._encoded(text, offsets=True)
        if tuple(encoded["input_ids"]) != tuple(ids):
            raise PromptError(UNKNOWN.format("their text has other ids"))
        span = tokens_within(encoded["offset_mapping"], self._frames.user_text(text))
        if span is None:
            raise PromptError(NO_TEXT)
        return span

    @cached_property
    def _frames(self) -> Frames:
        return Frames(lambda messages: self._text(messages, ()))

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
