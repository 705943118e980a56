"""What goes in and out of `/v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, Field

from guardrail.serve.errors import ApiError
from guardrail.serve.openai.logprobs import Logprob
from guardrail.serve.openai.shapes import Body, StreamOptions
from guardrail.serve.openai.tools import check_format
from guardrail.serve.verdict import GuardrailField

LOGPROBS = "message.output_text.logprobs"
STATELESS = (
    "Unsupported parameter: '{}' is not supported: this server keeps no conversations. Send the earlier "
    "items in 'input'."
)
Status: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed"]


class ResponseBody(Body):
    """The body of a request."""

    idle: ClassVar = {
        "background": (False,),
        "include": ([], [LOGPROBS]),
        "max_tool_calls": (),
        "prompt": (),
        "reasoning": ({}, {"effort": None}, {"effort": "none"}),
        "truncation": ("disabled",),
    }

    input: Annotated[str, Field(min_length=1)] | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    include: list[str] | None = None
    background: bool | None = None
    max_tool_calls: int | None = None
    prompt: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None

    def check(self) -> None:
        """Raises ApiError for what this server does not do."""
        for name in ("previous_response_id", "conversation"):
            if getattr(self, name) is not None:
                raise ApiError(400, STATELESS.format(name), code="unsupported_parameter", param=name)
        if self.stream_options is not None and not self.stream:
            text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
            raise ApiError(400, text, param="stream_options")
        check_format((self.text or {}).get("format"), "text.format")
        self.check_idle()

    @property
    def functions(self) -> list[dict[str, Any]]:
        """The tools in the form of chats. A schema is told to the model; that it is kept is not enforced."""
        names = ("name", "description", "parameters", "strict")
        return [
            {"type": tool.get("type"), "function": {name: tool[name] for name in names if name in tool}}
            for tool in self.tools or ()
        ]

    @property
    def logprobs(self) -> bool:
        """Whether log probabilities are wanted."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())


class TextPart(BaseModel):
    """What the model said."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Logprob] = []


class RefusalPart(BaseModel):
    """What was said in the model's place."""

    type: Literal["refusal"] = "refusal"
    refusal: str


Part: TypeAlias = TextPart | RefusalPart


class MessageItem(BaseModel):
    """A message of the assistant."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[Part]


class CallItem(BaseModel):
    """A tool that the model calls."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: Status
    call_id: str
    name: str
    arguments: str


Item: TypeAlias = MessageItem | CallItem


class Incomplete(BaseModel):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class Failure(BaseModel):
    """Why a response has failed."""

    code: str
    message: str


class InputDetails(BaseModel):
    """Nothing is kept from one request for the next."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    """Thoughts are not told apart from other text."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens of one request."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class ResponseObject(BaseModel):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool = False
    error: Failure | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: list[Item] = []
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    reasoning: dict[str, None] = {"effort": None, "summary": None}
    service_tier: str = "default"
    store: bool = False
    """Nothing is stored, whatever the request says."""
    temperature: float | None = None
    text: dict[str, dict[str, str]] = {"format": {"type": "text"}}
    tool_choice: str = "auto"
    tools: list[dict[str, Any]] = []
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    guardrail: GuardrailField | None = None

    def data(self) -> dict[str, Any]:
        """The JSON. What the guard has not said is left out; all else is there, if only as null."""
        return self.model_dump(exclude=None if self.guardrail else {"guardrail"})
