"""`python -m benchmarks.real.personas`: optimism and politeness on Qwen2.5-Coder-1.5B-Instruct.

The vector comes from the project's own extraction, the layer from its rule for steering, and the judges are
programs. Goes on where it was interrupted; about an hour for each trait on one core of a shared machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.real import results
from benchmarks.real.mixed_steering import MixedSubject
from benchmarks.real.models import QWEN_15B
from benchmarks.real.monitoring import monitored
from benchmarks.real.persona_vectors import SETTINGS, definition, extracted
from benchmarks.real.steered_replies import curve, sweep
from benchmarks.real.subjects import subject
from guardrail.engines.transformers.activations import Site
from guardrail.errors import ExtractionError
from guardrail.extract.layers.selection import by_steering
from guardrail.extract.prompts import trait_prompts
from guardrail.extract.rollouts import roll_out
from guardrail.types import Array

TRAITS = ("optimism", "politeness")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("traits", nargs="*", metavar="TRAIT", help=f"default: {' '.join(TRAITS)}")
    traits = parser.parse_args().traits or TRAITS
    model = subject(QWEN_15B)
    for trait in traits:
        print(measured(model, trait, results.RUNS / "personas" / QWEN_15B.name))
    return 0


def measured(model: MixedSubject, trait: str, folder: Path) -> Path:
    """Everything about one trait; the result file grows with every stage."""
    name = f"personas-{trait}"
    try:
        vectors, failed = extracted(model, trait, folder).vectors, None
    except ExtractionError as error:
        vectors, failed = None, str(error)
    found: dict[str, object] = {
        "model": QWEN_15B.name,
        "dtype": "bfloat16",
        "evidence": json.loads((folder / trait / "evidence.json").read_text(encoding="utf-8")),
    }
    if vectors is None:
        return results.save(name, {**found, "failed": failed})
    vectors.save(folder / f"{trait}.safetensors")
    found["source"] = vectors.provenance.traits[trait]
    results.save(name, found)
    vector = vectors[trait]
    try:
        choice = by_steering(sweep(model, vector, folder / trait))
    except ExtractionError as error:
        return results.save(name, {**found, "failed": str(error)})
    found["choice"] = choice
    found["monitored"] = monitored(model, vector, choice.layer, folder / trait)
    results.save(name, found)
    spoken = plain_states(model, trait, choice.layer, folder / trait)
    found["curve"] = curve(model, vector, choice.layer, spoken, folder / trait)
    return results.save(name, found)


def plain_states(model: MixedSubject, trait: str, layer: int, folder: Path) -> Array:
    """[tokens, d_model]: states of the extraction's replies without a system prompt."""
    rollouts = roll_out(model, trait, trait_prompts(definition(trait)), SETTINGS.rollouts, folder)
    found: list[Array] = []
    for prompt, reply in rollouts.replies():
        if prompt.kind == "neutral" and reply.ids:
            start = list(model.render(prompt.messages).ids)
            ids, mask = model.local.padded([[*start, *reply.ids]], left=False)
            states = model.activations.read(ids, mask, [Site(layer)], "all")[Site(layer)]
            found.append(states[0, len(start) :].float().cpu().numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    sys.exit(main())
