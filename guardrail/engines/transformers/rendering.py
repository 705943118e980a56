"""Messages to token ids by the model's own chat template. The tokenizer is read, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.engines import Prompt
from guardrail.errors import ModelError, PromptError
from guardrail.types import Message

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

    def render(self, messages: Sequence[Message]) -> Prompt:
        """The prompt up to where the reply begins. Raises PromptError if the template refuses."""
        try:
            text = self.tokenizer.apply_chat_template(
                [message.as_dict() for message in messages],
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=False,
                **self.arguments,
            )
        except Exception as error:  # a template raises whatever Jinja raises
            raise PromptError(f"the chat template refuses these messages: {error}") from error
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise PromptError("the prompt is empty")
        return Prompt(tuple(ids))

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
