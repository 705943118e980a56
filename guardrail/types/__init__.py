"""The data types that the guard passes around. Frozen dataclasses: no torch, no I/O, almost no behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Literal, TypeAlias

from guardrail.types.choices import Choice as Choice
from guardrail.types.choices import Finish as Finish
from guardrail.types.choices import Piece as Piece
from guardrail.types.choices import TokenLogprob as TokenLogprob
from guardrail.types.choices import ToolCall as ToolCall
from guardrail.types.configuration import Configuration as Configuration
from guardrail.types.probes import POSITIONS as POSITIONS
from guardrail.types.probes import TINY as TINY
from guardrail.types.probes import Array as Array
from guardrail.types.probes import Place as Place
from guardrail.types.probes import Position as Position
from guardrail.types.probes import Probe as Probe
from guardrail.types.probes import ProbeSite as ProbeSite
from guardrail.types.probes import States as States
from guardrail.types.probes import normed as normed
from guardrail.types.raw import RawPrompt as RawPrompt
from guardrail.types.sampling import Sampling as Sampling
from guardrail.types.tickets import Delivery as Delivery
from guardrail.types.tickets import Ticket as Ticket
from guardrail.types.tickets import TicketState as TicketState

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Mode: TypeAlias = Literal["enforce", "shadow", "off"]
Stage: TypeAlias = Literal["prompt", "response"]
Status: TypeAlias = Literal["evaluated", "error", "not_evaluated"]
Operator: TypeAlias = Literal["add", "ablate", "cap"]
FailureAction: TypeAlias = Literal["block", "allow", "escalate"]
Outcome: TypeAlias = Literal[
    "answered", "blocked", "rephrased", "escalated", "checked", "error", "cancelled", "late", "interrupted"
]

ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `content` is text, which may be empty if the turn calls tools.

    `tool_call_id` says which call a turn of the role `tool` answers; `name` is the tool's or the speaker's.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The format of the OpenAI API, without fields that are empty."""
        calls = [call.as_dict() for call in self.tool_calls]
        extra = {"tool_calls": calls, "tool_call_id": self.tool_call_id, "name": self.name}
        return {"role": self.role, "content": self.content, **{k: v for k, v in extra.items() if v}}


MessageLike: TypeAlias = Message | Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Ties vectors and a calibration to a model. Independent of path, dtype and library versions."""

    architecture: str
    layers: int
    d_model: int
    vocab_size: int
    weights: str
    tokenizer: str
    chat_template: str

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """The names of the fields that differ."""
        return tuple(name for name in self.__slots__ if getattr(self, name) != getattr(other, name))

    def fits(self, other: Fingerprint) -> bool:
        """Whether the sizes agree, so that vectors of one model can be used in the other."""
        return (self.layers, self.d_model) == (other.layers, other.d_model)


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What is known of a model that is not loaded yet. `weights`: None if not known."""

    layers: int
    d_model: int
    weights: str | None = None

    def imagined(self, theirs: Fingerprint) -> Fingerprint:
        """This model's fingerprint, if all that is not known of it is as `theirs`."""
        return replace(
            theirs, layers=self.layers, d_model=self.d_model, weights=self.weights or theirs.weights
        )


@dataclass(frozen=True, kw_only=True)
class Steering:
    """A change to activations, ready to apply: one direction and one amount per layer.

    `add`: h += direction. `ablate`: h -= <h, u> u. `cap`: the projection <h, u> is limited to `limits`
    (an upper limit, or a lower one if `floor`). Directions are [d_model] float32; for `ablate` and
    `cap` they are unit vectors u. Sources: Chen et al. 2025 (add), Arditi et al. 2024 (ablate),
    the Assistant Axis, 2026 (cap). `directions` is no field, so that a decision is plain data
    for `asdict` and JSON: read it with `direction`, and hand it to `replace` again.
    """

    policy: str
    trait: str
    operator: Operator
    layers: tuple[int, ...]
    directions: InitVar[tuple[Array, ...]]
    limits: tuple[float, ...] = ()
    floor: bool = False

    def __post_init__(self, directions: tuple[Array, ...]) -> None:
        object.__setattr__(self, "directions", directions)

    def renamed(self, policy: str) -> Steering:
        """The same for another policy."""
        return replace(self, policy=policy, directions=self.__dict__["directions"])

    def direction(self, i: int) -> Array:
        """The direction [d_model] at the layer `layers[i]`."""
        return self.__dict__["directions"][i]


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerSpec:
    """The steering that an action asks for, without vectors and layers; the plan turns it into `Steering`.

    `layers`: None means the policy's own layer; `all` every layer; `incremental` every layer with
    v_l - v_(l-1) (only `add`). `limit` is a projection, `percentile` a benign percentile (only `cap`).
    """

    operator: Operator
    layers: tuple[int, ...] | Literal["all", "incremental"] | None = None
    coefficient: float = 0.0
    limit: float | None = None
    percentile: float | None = None
    recheck: bool = False
    otherwise: FailureAction = "block"


STOP: Literal["stop"] = "stop"
Verdict: TypeAlias = Literal["stop"] | SteerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One condition of one policy on one prompt. `layer` is None for a scorer that reads no layer."""

    policy: str
    trait: str
    layer: int | None
    score: float
    threshold: float
    fired: bool
    mode: Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision of the policies on one prompt or one reply (`stage`); pure data.

    `action` is the action that policies ask for, `would_action` the one if shadow policies were enforced
    too. `policy` is the policy that decided, `fired` lists every policy that fired. `fail_open`: whether an
    enforced policy lets prompts pass on errors. `token`: the reply token at which `policy` fired, from 1.
    """

    status: Status
    action: str = ALLOW
    would_action: str = ALLOW
    policy: str | None = None
    fired: tuple[str, ...] = ()
    scores: Sequence[Score] = ()
    steering: tuple[Steering, ...] = field(default=(), repr=False)
    policy_sha256: str = ""
    vectors_sha256: str = ""
    calibration_sha256: str = ""
    """The SHA-256 of the calibration behind thresholds and scores; empty without one."""
    fail_open: bool = False
    warnings: tuple[str, ...] = ()
    error: str | None = None
    stage: Stage = "prompt"
    token: int | None = None
    otherwise: str | None = None
    """What took over from the action, if it failed or gave up: `block`, `allow`, `escalate`."""

    @property
    def done(self) -> str:
        """What was done: the action, or what took over from it."""
        return self.otherwise or self.action

    @property
    def stops(self) -> bool:
        """Whether the model stops: it samples no token, or no further one."""
        if self.action in ("rephrase", "escalate", "block"):
            return True
        return self.action not in ("allow", "steer") and not self.steering


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a policy may check about a request in addition to its activations."""

    tags: frozenset[str] = frozenset()
    user_turns: int | None = 1
    last_role: str | None = "user"
    """None, as `user_turns`: unknown, because the prompt came as text or ids."""
    conversation: str = ""
    waived: frozenset[str] = frozenset()
    extra: Mapping[str, float] = field(default_factory=dict[str, float])
    """Scores of scorers that read no layer, by scorer name."""
    drift: Mapping[str, float] = field(default_factory=dict[str, float])
    """The values of alarms over the conversation's replies, by policy id."""
    stale: str | None = None
    """Why the calibration's certificate no longer counts; `on_stale` says what that means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times in milliseconds: `guard` for reading and deciding, `prefill` for the prompt's forward pass."""

    guard: float = 0.0
    prefill: float = 0.0
    queue: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the caller gets. Append the next turn to `history`, which after a block omits the refused turn.

    `decision` is about the prompt; `reply_decision` about the reply, if response policies followed it. `text`
    is what the caller received. For a stopped reply: the text already streamed, then the action's answer.
    """

    text: str
    decision: Decision
    history: tuple[Message, ...]
    audit_id: str
    outcome: Outcome = "answered"
    """The outcome: answered, rephrased (then answered), escalated (someone else will answer, or has) or
    blocked."""
    ticket_id: str | None = None
    answered_by: str | None = None
    """Who answered in the model's place: `person`, or `model:NAME`. None: the model, or nobody."""
    earlier: tuple[Decision, ...] = ()
    """The decisions on earlier versions of this prompt, before it was rephrased or approved."""
    lifted: tuple[str, ...] = ()
    """The policies that a person has lifted for this prompt."""
    steered_passes: int = 0
    new_tokens: int = 0
    prompt_tokens: int = 0
    timing: Timing = Timing()
    reply_decision: Decision | None = None
    choices: tuple[Choice, ...] = ()
    """All replies, if several were asked for; the first is this one. An action's answer is the only one."""

    @property
    def finish(self) -> Finish:
        """Why the reply ended. What the policies did about it is in `final`."""
        return self.choices[0].finish if self.choices else "stop"

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that the model wants to be called."""
        return self.choices[0].tool_calls if self.choices else ()

    @property
    def final(self) -> Decision:
        """The decision on the reply if there is one, else the decision on the prompt."""
        return self.reply_decision or self.decision

    @property
    def refused(self) -> bool:
        """Whether the text ends in a refusal or a holding text: nobody has answered, or not to the end."""
        return self.final.stops and self.answered_by is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A decision without a reply."""

    decision: Decision
    audit_id: str
    timing: Timing = Timing()


Messages: TypeAlias = Sequence[MessageLike]
