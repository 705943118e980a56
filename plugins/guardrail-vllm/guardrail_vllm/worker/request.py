"""One request in a worker, from its first pass to its last: what is decided, steered and followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from torch import Tensor

from guardrail.engines import Span
from guardrail.engines.transformers.monitor import ReplyMonitor
from guardrail.engines.transformers.replies import ReplyReader
from guardrail.policy.decide_reply import Observed, Watch, decide_reply, watch
from guardrail.policy.plan import Plan
from guardrail.types import Decision, Facts, Position
from guardrail_vllm.worker.asked import Asked


class ReplyJudge:
    """Decides on a reply by the plan alone, and keeps what was last observed for the guard."""

    by_plan, cancelled = True, False

    def __init__(self, plan: Plan, facts: Facts) -> None:
        self._plan, self._facts = plan, facts
        self.observed: Observed | None = None

    def respond(self, row: int, observed: Observed) -> Decision:
        """The decision on what was observed so far."""
        self.observed = observed
        return decide_reply(self._plan, observed, self._facts)


@dataclass(eq=False, slots=True, kw_only=True)
class Watched:
    """A request that vLLM calls `name`, with `length` tokens in its prompt. `end` is a token that ends it.

    `error`: why it is stopped without a decision. `readings`: what the decision was made of.
    """

    name: str
    length: int
    end: int
    asked: Asked | None
    error: str | None = None
    began: float = field(default_factory=perf_counter)
    decision: Decision | None = None
    readings: Sequence[float] = ()
    sums: dict[tuple[int, Position], Tensor] = field(default_factory=dict[tuple[int, Position], Tensor])
    """By layer and position: the states [d_model] float32 that a mean is of, added up."""
    seen: int = 0
    """How many tokens of the prompt are in the sums, or were passed over because no mean is of them."""
    passes: int = 0
    """Forward passes that were steered."""
    monitor: ReplyMonitor | None = None
    judge: ReplyJudge | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it may get a token."""
        decision = self.decision
        if (
            self.error is not None
            or decision is None
            or decision.stops
            or self.asked is None
            or self.asked.check
        ):
            return False
        return self.monitor is None or not self.monitor.stopped

    @property
    def last(self) -> int:
        """The token that ends it at once."""
        own = self.asked.end if self.asked is not None else None
        return self.end if own is None else own

    @property
    def steered(self) -> bool:
        """Whether its passes are steered from its last prompt token on."""
        return self.goes_on and self.decision is not None and bool(self.decision.steering)

    @property
    def in_pieces(self) -> bool:
        """Whether more of its prompt has to be seen than the last token."""
        return self.asked is not None and self.asked.reads_means

    def knows(self, position: Position) -> bool:
        """Whether somebody has looked for the tokens that a mean is of."""
        return self.asked is not None and position in self.asked.spans

    def spans(self, position: Position) -> Sequence[Span]:
        """The tokens of the prompt that a mean is of."""
        assert self.asked is not None
        return self.asked.spans[position]

    def decided(self, decision: Decision, readings: Sequence[float]) -> None:
        """Take the decision on the prompt."""
        self.decision, self.readings = decision, readings
        self.sums.clear()

    def fail(self, error: str) -> None:
        """Stop it. The first error counts."""
        self.error = self.error or error

    def follow(self, reader: ReplyReader | None, ends: Sequence[int]) -> None:
        """Follow its reply, if it gets one and a policy is about it."""
        if not self.goes_on or reader is None or self.asked is None:
            return
        plan, facts = self.asked.plan, self.asked.facts
        wanted: Watch = watch(plan, facts, self.asked.turn)
        if wanted.anything:
            self.judge = ReplyJudge(plan, facts)
            self.monitor = ReplyMonitor(reader, self.judge, [0], [wanted], ends)  # type: ignore[arg-type]
