"""Compares logs with what their anchor has sealed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from guardrail.audit.lines import Anchored
from guardrail.audit.verification import Chain, Fault, VerifyReport


def compare(
    chains: Sequence[Chain], seals: Sequence[Anchored], anchor: Chain, head: str | None = None
) -> list[VerifyReport]:
    """A report on each log: its own faults, those of the anchor, and what does not agree."""
    known = {chain.name for chain in chains}
    anchors, reports = list(_of_anchor(anchor)), list[VerifyReport]()
    for chain in chains:
        own = [seal for seal in seals if seal.chain == chain.name]
        told = _disagreements(chain, own) if own else [_unknown(anchor)]
        last = max((chain.met[seal.head] for seal in own if seal.head in chain.met), default=0)
        reports.append(chain.report(head, [*anchors, *_lost(chain, seals, known), *told], chain.count - last))
    return reports


def _of_anchor(anchor: Chain) -> Iterator[Fault]:
    for fault in anchor.faults:
        yield Fault(0, f"the anchor itself, {anchor.path}:{fault.line}: {fault.message}")


def _unknown(anchor: Chain) -> Fault:
    return Fault(0, f"nothing of this log is sealed in {anchor.path}: it is new, or was emptied or replaced")


def _lost(chain: Chain, seals: Sequence[Anchored], known: set[str]) -> Iterator[Fault]:
    """Other logs that were sealed at this path, and are not among those that were given."""
    here = str(Path(chain.path).resolve())
    lost = {seal.chain: seal for seal in seals if seal.log == here and seal.chain not in known}
    for seal in lost.values():
        yield Fault(
            0,
            f"another log was sealed at this path until {seal.time}: this one was emptied or replaced, "
            "or the other was moved away; then name its file too",
        )


def _disagreements(chain: Chain, own: Sequence[Anchored]) -> Iterator[Fault]:
    pruned_away = _pruned_away(chain, own)
    for i, seal in enumerate(own):
        if seal.head not in chain.met and i >= pruned_away:
            yield Fault(0, f"what was sealed at {seal.time} is gone: lines were changed or cut off")


def _pruned_away(chain: Chain, own: Sequence[Anchored]) -> int:
    """How many of the seals may be about lines that were pruned: those before the seal of that pruning."""
    last = chain.start.last if chain.start else ""
    return next((i for i, seal in enumerate(own) if last and seal.pruned == last), 0)
