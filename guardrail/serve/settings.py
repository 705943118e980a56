"""Everything that can be set about the server. The command line builds it; nothing else reads options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from guardrail.serve.keys import Key, Right

Blocks: TypeAlias = Literal["refusal", "error"]
"""What a block is: a completion that holds the policy's message, or HTTP 400."""
LINGER_S = 1.0
"""How long a client that is refused may go on sending, so that it sees the answer."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Positive: TypeAlias = Annotated[float, Field(gt=0)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


class ServerSettings(BaseModel):
    """The settings of one server. Times in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = "demo"
    """The name of the model in `/v1/models`, and in requests."""
    aliases: tuple[str, ...] = ()
    """Other names that requests may use for it."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 chooses a free one."""
    blocks: Blocks = "refusal"
    keys: tuple[Key, ...] = ()
    """Without any, everyone who reaches the port has the `open_rights`."""
    keys_file: Path | None = None
    """Where the keys come from; it is read again when it changes."""
    open_metrics: bool = False
    """Whether `/metrics` needs no key, although other paths do."""
    origins: tuple[str, ...] = ()
    """Web pages whose scripts may call the server (CORS); `*` for all."""
    near: Path | None = None
    """Benign prompts that `/look` compares with, if its form names none."""
    hosts: tuple[str, ...] = ()
    """Names in the header `Host` that are accepted besides those of this machine."""
    queue: Count = 64
    """How many requests may be in the server, those that run included."""
    deadline_s: Positive = 300.0
    """From a request's arrival to the end of its reply."""
    grace_s: Positive = 30.0
    """How long requests may go on after the server was told to stop."""
    send_s: Positive = 30.0
    """How long a client may leave what was sent to it unread, or take to send its request."""
    max_body: Count = 4 << 20
    max_messages: Count = 2000
    max_tokens: Count = 4096
    """The longest reply that a request may ask for."""
    default_tokens: Count = 512
    """The longest reply to a request that names no limit."""
    max_choices: Count = 32
    """The most replies (`n`) that one request may ask for."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the model."""
        return (self.model, *self.aliases)

    @property
    def open_rights(self) -> tuple[Right, ...]:
        """What everyone who reaches a server without keys may do. To review is never part of it."""
        return ("ask", "admin", "metrics") if self.on_loopback else ("ask",)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")
