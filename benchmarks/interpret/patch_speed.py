"""A sweep over layers and tokens: many patches in a pass, one patch in a pass, and TransformerLens.

    python -m benchmarks.interpret.patch_speed own FOLDER     # of the built-in model, for the next
    PYTHON-WITH-TRANSFORMER-LENS benchmarks/interpret/patch_speed.py lens FOLDER

Equal numbers are part of the test: effects of all three have to agree within 1e-4.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import process_time

REPEATS = 3
PARTS = ("resid", "mlp", "attn")


def own(folder: Path) -> None:
    """Time the sweep both ways; write the model, the pair and the effects."""
    import torch

    from guardrail.extract.subject import Subject
    from guardrail.interpret.patching.beginnings import parted
    from guardrail.interpret.patching.builtin import demo_pairs
    from guardrail.interpret.patching.effects import answers, moved
    from guardrail.interpret.patching.pairs import aligned
    from guardrail.interpret.patching.patches import Patch
    from guardrail.interpret.patching.runs import Placed, patched, record

    torch.set_num_threads(1)
    subject = Subject.load("demo", device="cpu")
    (pair,) = parted(subject, aligned(subject, demo_pairs()[:1], "chat")[0])
    columns = range(pair.tokens)
    layers = range(1, subject.layers + 1)
    placed = [Placed(Patch((n,), part, "-"), [at]) for part in PARTS for n in layers for at in columns]  # type: ignore[arg-type]

    def effects(groups: list[list[Placed]]) -> list[float]:
        source, target = record(subject, pair.source), record(subject, pair.target)
        found = answers(pair, source, target)
        made: list[float] = []
        for group in groups:
            values = [0.0] * len(group)
            for rows, logits in patched(subject, target, source, group):
                part = moved(logits, target, source, found.target, found.source, pair)
                for row, value in zip(rows, part.effects, strict=True):
                    values[row] = value
            made += values
        return made

    together, many = timed(lambda: effects([placed]))
    alone, one = timed(lambda: effects([[each] for each in placed]))
    worst = max(abs(a - b) for a, b in zip(many, one, strict=True))
    subject.model.float().save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    found = answers(pair, record(subject, pair.source), record(subject, pair.target))
    described = {
        "source": pair.source,
        "target": pair.target,
        "answers": [found.source, found.target],
        "effects": many,
        "patches": len(placed),
        "seconds": together,
        "seconds_one_by_one": alone,
        "largest_difference_one_by_one": worst,
    }
    (folder / "pair.json").write_text(json.dumps(described))
    print(json.dumps({key: value for key, value in described.items() if key != "effects"}))


def lens(folder: Path) -> None:
    """The same sweep by TransformerLens, on the same weights."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.patching import (
        get_act_patch_attn_out,
        get_act_patch_mlp_out,
        get_act_patch_resid_pre,
    )

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = TransformerBridge.boot_transformers(str(folder), device="cpu")
    # names as in HookedTransformer; weights stay as they are, so that values are the model's own
    model.enable_compatibility_mode(no_processing=True)
    layers = model.cfg.n_layers
    pair = json.loads((folder / "pair.json").read_text())
    source, target = (torch.tensor([pair[name]]) for name in ("source", "target"))
    a, b = pair["answers"]

    def effects() -> list[float]:
        theirs_logits, cache = model.run_with_cache(source)
        own_logits = model(target)

        def lead(logits: torch.Tensor) -> torch.Tensor:
            return logits[0, -1, a] - logits[0, -1, b]

        low, high = lead(own_logits), lead(theirs_logits)

        def effect(logits: torch.Tensor) -> torch.Tensor:
            return (lead(logits) - low) / (high - low)

        # theirs patches in front of a layer, ours behind it: layers 2 to L, and after the last one by hand
        residual = get_act_patch_resid_pre(model, target, cache, effect)
        rows = [residual[n].tolist() for n in range(1, layers)]
        rows.append([0.0] * (target.shape[1] - 1) + [1.0])
        mlp, attention = (
            f(model, target, cache, effect) for f in (get_act_patch_mlp_out, get_act_patch_attn_out)
        )
        return [value for row in (*rows, *mlp.tolist(), *attention.tolist()) for value in row]

    seconds, found = timed(effects)
    worst = max(abs(x - y) for x, y in zip(found, pair["effects"], strict=True))
    print(
        json.dumps(
            {"seconds": seconds, "largest_difference": worst, "times_faster": seconds / pair["seconds"]}
        )
    )


def timed(run):
    """(processor seconds of the fastest of REPEATS, result)."""
    taken = []
    for _ in range(REPEATS):
        begun = process_time()
        result = run()
        taken.append(process_time() - begun)
    return min(taken), result


if __name__ == "__main__":
    (own if sys.argv[1] == "own" else lens)(Path(sys.argv[2]))
