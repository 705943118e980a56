"""Following the replies of one batch while they are generated: read, compare, steer, look, stop.

Every generated token is read in its own forward pass. Scores, running statistics, thresholds and gates stay
on the device; the host looks only if a rule could stop a reply, every so many tokens, and once at the end. A
token has activations once it is fed back, so the last token is never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from guardrail.engines import Evaluator
from guardrail.engines.transformers.gates import Gates
from guardrail.engines.transformers.replies import Followed, ReplyReader
from guardrail.engines.transformers.reply_state import ReplyState
from guardrail.errors import outline
from guardrail.policy.decide_reply import Observed, Watch
from guardrail.types import Decision, Steering


class ReplyMonitor:
    """Follows the replies to `prompts` (their rows in the evaluator), one row each. `ends` are token ids.

    `read` and `steer` are called at every layer of every decoding pass, `ended` after every token.
    """

    def __init__(
        self,
        reader: ReplyReader,
        evaluator: Evaluator,
        prompts: Sequence[int],
        watches: Sequence[Watch],
        ends: Sequence[int],
    ) -> None:
        self.reader, self.evaluator, self.prompts = reader, evaluator, prompts
        self._watches, self._ends = watches, torch.tensor(list(ends), device="cpu")
        self._rules = reader.plan.reply_rules
        self._about = [row for row, watch in enumerate(watches) if any(mode != "off" for mode in watch.modes)]
        self._modes = [[watch.modes[i] for watch in watches] for i in range(len(self._rules))]
        stopping = [rule for i, rule in enumerate(self._rules) if self._enforces(i) and rule.steering is None]
        self._everies = {rule.monitor.every for rule in stopping if rule.monitor}
        self.tokens = 0
        """How many tokens of each reply were read."""
        self.error: str | None = None
        self._decisions: dict[int, Decision] = {}
        self._kept: dict[int, int] = {}
        self._seen: dict[int, tuple[bool, ...]] = {}
        self._state: ReplyState | None = None
        self._alive: Tensor | None = None
        self._stopped: Tensor | None = None
        self._gates = Gates(
            [(i, rule.steering) for i, rule in enumerate(self._rules) if self._enforces(i) and rule.steering]
        )
        self._enforced: Tensor | None = None
        self._chunks: list[Tensor] = []
        self._finished = False

    def _enforces(self, i: int) -> bool:
        return "enforce" in self._modes[i]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers to be shown to `read` and `steer`."""
        return tuple(sorted({*self.reader.layers, *self._gates.layers}))

    @property
    def stopped(self) -> bool:
        """Whether every reply was stopped."""
        return len(self._kept) == len(self.prompts)

    @property
    def any_stopped(self) -> bool:
        """Whether some reply was stopped."""
        return bool(self._kept)

    # --- in every forward pass ------------------------------------------------------------------------

    def read(self, layer: int, hidden: Tensor) -> None:
        """Take in the newest token at one layer, hidden [rows, positions, d_model]. Errors: `on_error`."""
        if self.error is not None or layer not in self.reader.layers:
            return
        try:
            self._chunks.append(self.reader.scores(layer, hidden[:, -1]))
            if layer == self.reader.layers[-1]:
                self._token(self._gathered())
        except Exception as error:
            self._fail(outline(error))

    def steer(self, layer: int, hidden: Tensor) -> None:
        """Change the newest token at one layer in the rows whose gate is open, in place."""
        if self.error is None and self._state is not None:
            self._gates.apply(layer, hidden[:, -1:])

    def ended(self, ids: Tensor, scores: object = None, **_: object) -> Tensor:
        """A stopping criterion [rows]: replies that were stopped. Also notes those that end by themselves."""
        if self._stopped is None:
            self._stopped = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if len(ids) > 1:
            self._ends = self._ends.to(ids.device, ids.dtype)
            going = ~torch.isin(ids[:, -1], self._ends)
            self._alive = going if self._alive is None else self._alive & going
        for row in self._kept:
            self._stopped[row] = True
        return self._stopped

    def _gathered(self) -> Tensor:
        device = self._chunks[-1].device
        chunks, self._chunks = [chunk.to(device) for chunk in self._chunks], []
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks, 1)

    def _token(self, scores: Tensor) -> None:
        self.tokens += 1
        if self._state is None:
            self._state = ReplyState(self.reader, scores, bool(self._about))
            self._enforced = torch.tensor(self._enforced_rows(), device=scores.device)
        alive = None if self._alive is None else self._alive.to(scores.device)
        self._state.update(scores, alive)
        if self._about:
            if self._gates.layers and self._enforced is not None:
                self._gates.open(~self._state.quiet & self._enforced)
            if any(self.tokens % every == 0 for every in self._everies):
                self._look()

    def _enforced_rows(self) -> list[list[bool]]:
        rows = range(len(self.prompts))
        return [[self._modes[i][row] == "enforce" for i in range(len(self._rules))] for row in rows]

    def opened(self, row: int) -> list[tuple[Steering, int]]:
        """What steers a reply, and the token from which it does, for those who compute tokens again."""
        if self._state is None:
            return []
        rules = zip(self._rules, self._state.observed(row, self.tokens).fired, strict=True)
        return [
            (rule.steering, fired)
            for i, (rule, fired) in enumerate(rules)
            if fired is not None and rule.steering and self._modes[i][row] == "enforce"
        ]

    # --- looking --------------------------------------------------------------------------------------

    def _look(self) -> None:
        assert self._state is not None
        quiet = self._state.quiet.tolist()
        for row in self._about:
            fired = tuple(not q for q in quiet[row])
            if any(fired) and row not in self._kept and self._seen.get(row) != fired:
                self._seen[row] = fired
                self._judge(row, self._state.observed(row, self.tokens), self.tokens)

    def _judge(self, row: int, observed: Observed, kept: int) -> None:
        decision = self._decisions[row] = self.evaluator.respond(self.prompts[row], observed)
        if decision.stops:
            self._kept[row] = kept

    def _fail(self, error: str) -> None:
        self.error = error
        self._judge_all(Observed(tokens=self.tokens, error=error), self.tokens)

    def _judge_all(self, observed: Observed | None, kept: int) -> None:
        for row in self._about:
            if row not in self._kept:
                seen = observed or Observed(tokens=0)
                if observed is None and self._state is not None:
                    seen = self._state.observed(row, self.tokens)
                self._judge(row, seen, kept)

    def finish(self) -> None:
        """The last look, at the end of the generation, at everything that was read."""
        if not self._finished and self.error is None:
            # the last token is out by now, whether it was read or not
            self._judge_all(None, self.tokens + 1)
        self._finished = True

    def followed(self) -> list[Followed]:
        """How the replies went, in the order of `prompts`."""
        self.finish()
        counts = self._gates.counts(len(self.prompts))
        return [
            Followed(
                decision=self._decision(row, counts[row]),
                kept=self._kept.get(row),
                turn=self._turn(row),
                steered_passes=counts[row],
            )
            for row in range(len(self.prompts))
        ]

    def _decision(self, row: int, steered: int) -> Decision | None:
        decision = self._decisions.get(row)
        if decision is None or decision.action != "steer" or steered:
            return decision
        note = f"{decision.policy}: fired as the reply ended, so nothing was steered"
        return replace(decision, warnings=(*decision.warnings, note))

    def _turn(self, row: int) -> tuple[float, ...] | None:
        if self._state is None or self.error is not None or not self._watches[row].turn:
            return None
        return self._state.turn(row)


class GatedStreamer:
    """A streamer that gets nothing more once every reply was stopped, and no end if any was.

    What takes the place of a reply comes after it, and then the end.
    """

    def __init__(self, streamer: Any, monitor: ReplyMonitor) -> None:
        self._streamer, self._monitor = streamer, monitor

    def put(self, value: Tensor) -> None:
        """Pass tokens on while the reply goes on."""
        if not self._monitor.stopped:
            self._streamer.put(value)

    def end(self) -> None:
        """Take the last look, then pass the end on; after a stop, held-back text is never released."""
        self._monitor.finish()
        if not self._monitor.any_stopped:
            self._streamer.end()
