"""Policies, prompts and guards that the tests of the engine share."""

from dataclasses import replace
from random import Random

import numpy as np

from guardrail import Guard
from guardrail.demo.generator import draw_prompt, draw_training_condition
from guardrail.types import Probe, ProbeSite

STEER = {"operator": "cap", "at": {"percentile": 75}}
POLICIES = {
    "version": 1,
    "vectors": "demo",
    "calibration": "demo",
    "policies": [
        {"id": "no-malice", "trait": "evil", "threshold": {"fpr": 0.001}, "action": "block"},
        {
            "id": "facts",
            "trait": "hallucination",
            "layer": 5,
            "threshold": {"fpr": 0.01},
            "action": {"rephrase": {"instruction": "If you do not know, say so.", "otherwise": "block"}},
        },
        {"id": "straight", "trait": "sycophancy", "threshold": {"fpr": 0.01}, "action": {"steer": STEER}},
    ],
}
GREEDY = {"temperature": 0, "max_new_tokens": 16}
NEVER, ALWAYS = 1e6, -1e6


def policies(*rules):
    """The same file with other policies."""
    return POLICIES | {"policies": list(rules)}


def steering(operator="cap", threshold=ALWAYS, **more):
    """A policy that steers everything, or nothing."""
    action = {"operator": operator, **({"at": {"percentile": 75}} if operator == "cap" else {}), **more}
    return {"id": f"s-{operator}", "trait": "sycophancy", "threshold": threshold, "action": {"steer": action}}


def prompts(count, seed=0):
    """Mixed conversations, benign and not."""
    random = Random(seed)
    return [draw_prompt(random, draw_training_condition(random)).messages for _ in range(count)]


def guarded(file=None, **options):
    """The built-in model under vLLM."""
    import torch

    given = {"dtype": torch.float32, "kv_cache_memory_bytes": 1 << 28} | options
    return Guard.from_pretrained("demo", file or POLICIES, engine="vllm", **given)


def compiled(reference, *rules):
    """The plan of other policies for the same model."""
    import torch

    with Guard.from_pretrained(
        "demo", policies(*rules), engine="transformers-hooks", dtype=torch.float32
    ) as other:
        return other.active.plan


def with_threshold(plan, threshold):
    """The plan with one threshold for all its rules."""
    rules = [
        replace(rule, conditions=tuple(replace(c, threshold=threshold) for c in rule.conditions))
        for rule in plan.rules
    ]
    return replace(plan, rules=tuple(rules))


def reading_means(plan):
    """The plan with one rule, about the last token, a mean, and a sum of means over two layers."""
    rng, rule = np.random.default_rng(0), plan.rules[0]

    def weights():
        return rng.normal(size=len(plan.probes[0].weights)).astype(np.float32)

    earlier = (ProbeSite(layer=2, position="user_mean", weights=weights(), normalised=True),)
    places = [(3, "last", ()), (4, "user_mean", ()), (5, "prompt_mean", earlier)]
    probes = tuple(
        Probe(trait="evil", layer=layer, weights=weights(), position=position, earlier=sites)
        for layer, position, sites in places
    )
    conditions = tuple(replace(rule.conditions[0], layer=5, reading=i) for i in range(len(probes)))
    return replace(plan, probes=probes, rules=(replace(rule, conditions=conditions),))
