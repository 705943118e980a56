"""Plans with policies about replies, and an evaluator that decides on replies alone."""

from dataclasses import dataclass, field, replace

from tiny import Fixed, plan, random_vector

from guardrail.policy.decide_reply import Observed, Watch, decide_reply, watch
from guardrail.policy.model import Monitor
from guardrail.policy.rules import CompiledCondition
from guardrail.types import Decision, Facts, Probe

NEVER, ALWAYS = 1e6, -1e6


@dataclass
class Following(Fixed):
    """Lets prompts pass and decides on replies; `about` are the rows that the policies are about."""

    plan: object = None
    about: tuple[int, ...] = (0, 1, 2, 3)
    observed: dict[int, list[Observed]] = field(default_factory=dict)

    def watch(self, row: int) -> Watch:
        found = watch(self.plan, Facts())
        return found if row in self.about else Watch(("off",) * len(found.modes))

    def respond(self, row: int, observed: Observed) -> Decision:
        self.observed.setdefault(row, []).append(observed)
        return decide_reply(self.plan, observed, Facts())


def following(*specs, prompt_layer=2):
    """A plan with one reply rule for each spec (threshold, action, monitor, layer, ...)."""
    base, rules, probes = plan((prompt_layer,)), [], []
    for i, spec in enumerate(specs):
        layer, fires = spec.get("layer", 3), spec.get("fires", "above")
        limit = spec.get("threshold", NEVER)
        condition = CompiledCondition(
            trait="evil", layer=layer, reading=i, threshold=limit, raw=limit, fires=fires
        )
        steer = spec.get("steering")
        rules.append(
            replace(
                base.rules[0],
                id=f"r{i}",
                conditions=(condition,),
                action="steer" if steer else spec.get("action", "block"),
                steering=steer,
                mode=spec.get("mode", "enforce"),
                monitor=Monitor(**spec.get("monitor", {"every": 1})),
            )
        )
        probes.append(Probe(trait="evil", layer=layer, weights=random_vector(10 + i)))
    return replace(base, reply_rules=tuple(rules), reply_probes=tuple(probes))
