"""Public fakes and fixtures, for these tests and for plugin authors. Downloads nothing; torch loads lazily.

`tiny_model` and `tiny_tokenizer` are a real, random-weight Hugging Face model and a real tokenizer;
`MemoryAudit` and `MemoryQueue` are real sinks that forget; `hand_made_vectors` and `hand_made_plan` give
a plan whose scores can be worked out on paper.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.errors import ConfigError, EscalationError
from guardrail.plan import CompiledCondition, Plan, Rule
from guardrail.policy import Defaults, When
from guardrail.records import utc_now
from guardrail.types import AuditRecord, Decision, Fingerprint, Message, Mode, Probe, Ticket
from guardrail.vectors import Provenance, TraitVector, TraitVectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, START, END = "<pad>", "<s>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role: ' ~ message['role']) }}{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SLIDING_WINDOW = 8

_WINDOWED = ("sliding_attention", "full_attention")
_ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": SLIDING_WINDOW, "layer_types": _WINDOWED},
    "mistral": {"sliding_window": SLIDING_WINDOW, "head_dim": 8},
    "gpt2": {},
    "gpt_neox": {},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
}
ARCHITECTURES: tuple[str, ...] = tuple(_ARCHITECTURES)
"""What `tiny_model` can build. gemma3_text and mistral attend through a window of SLIDING_WINDOW tokens."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, so lossless on any text; with a chat template and special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [PAD, START, END, *ROLES, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_model(
    architecture: str = "llama", layers: int = 4, d_model: int = 32, seed: int = 0, **overrides: Any
) -> PreTrainedModel:
    """A float32 model with random weights in evaluation mode; `overrides` go to its configuration.

    The same arguments give the same weights, and the global random state is left alone.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = _settings(architecture, layers, d_model) | overrides
    config = AutoConfig.for_model(architecture, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def _settings(architecture: str, layers: int, d_model: int) -> dict[str, Any]:
    if architecture not in _ARCHITECTURES:
        raise ConfigError(f"no tiny `{architecture}`; there are {', '.join(ARCHITECTURES)}")
    settings = {
        "hidden_size": d_model,
        "intermediate_size": 2 * d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "vocab_size": 256 + 3 + len(ROLES),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        # 0.02 on so small a width gives nearly constant logits, where differences would not show
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
        **_ARCHITECTURES[architecture],
    }
    if "layer_types" in settings:
        settings["layer_types"] = [_WINDOWED[i % 2] for i in range(layers)]
    if architecture in ("gpt2", "gpt_neox"):
        settings.pop("num_key_value_heads")
    return settings


def tiny_fingerprint(layers: int = 4, d_model: int = 32) -> Fingerprint:
    """A fingerprint of the right sizes, for vectors that no model file backs."""
    return Fingerprint(
        architecture="llama",
        layers=layers,
        d_model=d_model,
        vocab_size=256 + 3 + len(ROLES),
        weights="tiny",
        tokenizer="tiny",
        chat_template="tiny",
    )


def hand_made_vectors(
    traits: Sequence[str] = ("evil", "sycophancy"), fingerprint: Fingerprint | None = None
) -> TraitVectors:
    """Vectors along coordinate axes: trait number i steers and reads coordinate i, at every layer."""
    fingerprint = fingerprint or tiny_fingerprint()
    axes = np.eye(fingerprint.d_model, dtype=np.float32)
    rows = fingerprint.layers + 1
    vectors = {
        trait: TraitVector.from_difference(trait, np.tile(axes[i], (rows, 1)), layer=max(1, rows // 2))
        for i, trait in enumerate(traits)
    }
    provenance = Provenance(fingerprint=fingerprint, method="hand-made", created="2026-01-01")
    return TraitVectors(vectors, provenance)


def hand_made_plan(
    threshold: float = 0.0,
    action: str = "block",
    layer: int = 2,
    d_model: int = 32,
    mode: Mode = "enforce",
    message: str | None = None,
) -> Plan:
    """One policy `test` on `evil`, whose score is coordinate 0 of the residual stream at `layer`."""
    weights = np.eye(1, d_model, dtype=np.float32)[0]
    condition = CompiledCondition(trait="evil", layer=layer, reading=0, threshold=threshold, raw=threshold)
    rule = Rule(
        id="test",
        conditions=(condition,),
        require_all=True,
        action=action,
        config=None,
        steering=None,
        recheck=None,
        otherwise="block",
        mode=mode,
        when=When(),
        share=1.0,
        message=message,
        settings=Defaults(mode=mode),
    )
    return Plan(probes=(Probe(trait="evil", layer=layer, weights=weights),), rules=(rule,))


def decision(action: str = "block", policy: str = "test") -> Decision:
    """An evaluated decision for one policy that fired."""
    return Decision(status="evaluated", action=action, would_action=action, policy=policy, fired=(policy,))


def ticket(ticket_id: str = "t-1", text: str = "Hello?") -> Ticket:
    """A pending ticket about one user message."""
    return Ticket(
        id=ticket_id,
        policy="test",
        state="pending",
        created=utc_now(),
        decision=decision("escalate"),
        messages=(Message("user", text),),
    )


def audit_record(record_id: str = "r-1", action: str = "block") -> AuditRecord:
    """A record of a chat that was decided and has no outcome yet."""
    return AuditRecord(
        id=record_id,
        time=utc_now(),
        kind="chat",
        decision=decision(action),
        prompt_sha256="0" * 64,
        prompt_tokens=3,
    )


class MemoryAudit:
    """An audit sink that keeps records in memory, by id. `failing` makes every write an OSError."""

    name = "memory"

    def __init__(self, failing: bool = False) -> None:
        self.records: dict[str, AuditRecord] = {}
        self.events: list[tuple[str, str]] = []
        self.failing = failing
        self.closed = False

    def decided(self, record: AuditRecord) -> None:
        """Keep the decision."""
        self._keep("decided", record)

    def finished(self, record: AuditRecord) -> None:
        """Keep the outcome."""
        self._keep("finished", record)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _keep(self, event: str, record: AuditRecord) -> None:
        if self.failing:
            raise OSError("no space left on device")
        self.records[record.id] = record
        self.events.append((event, record.id))


class MemoryQueue:
    """An escalation sink that keeps tickets in memory. `failing` makes every call an OSError."""

    name = "memory-queue"

    def __init__(self, failing: bool = False) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.failing = failing
        self._lock = threading.Lock()

    def open(self, ticket: Ticket) -> None:
        """Keep the ticket."""
        self._check()
        self.tickets[ticket.id] = ticket

    def get(self, ticket_id: str) -> Ticket | None:
        """The ticket, or None."""
        self._check()
        return self.tickets.get(ticket_id)

    def pending(self) -> Sequence[Ticket]:
        """Tickets that nobody has resolved, oldest first."""
        self._check()
        return [ticket for ticket in self.tickets.values() if ticket.state == "pending"]

    def resolve(self, ticket_id: str, approve: bool, resolver: str, note: str | None = None) -> Ticket:
        """Approve or deny a pending ticket. Raises EscalationError for an unknown or a resolved one."""
        self._check()
        with self._lock:
            ticket = self.tickets.get(ticket_id)
            if ticket is None or ticket.state != "pending":
                raise EscalationError(f"ticket {ticket_id}: {ticket.state if ticket else 'unknown'}")
            state = "approved" if approve else "denied"
            done = replace(ticket, state=state, resolved=utc_now(), resolver=resolver, note=note)
            self.tickets[ticket_id] = done
        return done

    def _check(self) -> None:
        if self.failing:
            raise OSError("the queue is down")
