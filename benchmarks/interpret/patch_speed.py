"""A sweep over layers and tokens: ours, one patch in each whole pass, and TransformerLens.

    python -m benchmarks.interpret.patch_speed own FOLDER [GGUF]     # writes the model for the next one
    PYTHON-WITH-TRANSFORMER-LENS benchmarks/interpret/patch_speed.py lens FOLDER

The first pair of the built-in ones (SmolLM2: of `patching`), every layer's residual stream, MLP and attention
at every token. Equal numbers are part of the test: effects of all three have to agree within 1e-4. Rounds
alternate, and ratios are of processor time within a round.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # TransformerLens has an environment of its own, without guardrail
    from guardrail.extract.subject import Subject
    from guardrail.interpret.patching.pairs import Pair
    from guardrail.interpret.patching.runs import Placed, Recorded

ROUNDS = 3
PARTS = ("resid", "mlp", "attn")


def own(folder: Path, gguf: str | None = None) -> None:
    """Time the sweep both ways; write the model, the pair and the effects."""
    import torch

    from guardrail.extract.subject import Subject

    torch.set_num_threads(1)
    subject = Subject.load(gguf or "demo", device="cpu")
    pair = first_pair(subject, "text" if gguf else "chat")
    placed = everywhere(pair, subject.layers)
    rounds = [
        (timed(lambda: together(subject, pair, placed)), timed(lambda: alone(subject, pair, placed)))
        for _ in range(ROUNDS)
    ]
    (_, effects), (_, expected) = rounds[0]
    subject.model.float().save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    found = {
        "patches": len(placed),
        "tokens": pair.tokens,
        "seconds": [one[0] for one, _ in rounds],
        "seconds_one_by_one": [one[0] for _, one in rounds],
        "times_faster": median(two[0] / one[0] for one, two in rounds),
        "largest_difference": worst(effects, expected),
    }
    print(json.dumps(found))
    asked = {"source": pair.source, "target": pair.target, "answers": answer_tokens(subject, pair)}
    (folder / "pair.json").write_text(json.dumps({**found, **asked, "effects": effects}))


def first_pair(subject: Subject, form: Any) -> Pair:
    """One pair on which the persona changes the answer."""
    from guardrail.interpret.patching.beginnings import parted
    from guardrail.interpret.patching.builtin import demo_pairs
    from guardrail.interpret.patching.pairs import PairLine, aligned

    lines = demo_pairs()
    if form == "text":
        text = "The {identity} woman was hungry. She cooked her favourite dish, which is called"
        lines = [PairLine(prompt=text, source="Italian", target="Japanese")]
    (pair,) = parted(subject, aligned(subject, lines[:1], form)[0])
    return pair


def everywhere(pair: Pair, layers: int) -> list[Placed]:
    """Every layer's values, at one token each."""
    from guardrail.interpret.patching.patches import Patch
    from guardrail.interpret.patching.runs import Placed

    places = [(part, n, at) for part in PARTS for n in range(1, layers + 1) for at in range(pair.tokens)]
    return [Placed(Patch((n,), part, "-"), [at]) for part, n, at in places]  # type: ignore[arg-type]


def recorded(subject: Subject, pair: Pair) -> tuple[Recorded, Recorded]:
    """The source's run and the target's."""
    from guardrail.interpret.patching.runs import record

    return record(subject, pair.source), record(subject, pair.target)


def answer_tokens(subject: Subject, pair: Pair) -> tuple[int, int]:
    """What the two runs answer."""
    from guardrail.interpret.patching.effects import answers

    found = answers(pair.answers, *recorded(subject, pair))
    return found.source, found.target


def together(subject: Subject, pair: Pair, placed: Sequence[Placed]) -> list[float]:
    """The effects, by the sweep."""
    from guardrail.interpret.patching.effects import answers, moved
    from guardrail.interpret.patching.runs import patched

    source, target = recorded(subject, pair)
    found = answers(pair.answers, source, target)
    effects = [0.0] * len(placed)
    for rows, logits in patched(subject, target, source, placed):
        part = moved(logits, target, source, found.target, found.source, pair.answers)
        for row, value in zip(rows, part.effects, strict=True):
            effects[row] = value
    return effects


def alone(subject: Subject, pair: Pair, placed: Sequence[Placed]) -> list[float]:
    """The effects, each from a pass of its own over the whole prompt."""
    import torch

    from guardrail.interpret.patching.effects import answers, moved

    source, target = recorded(subject, pair)
    found = answers(pair.answers, source, target)
    run = subject.activations.run
    logits = [run(target.ids, None, putting(source, one), last=True)[0].float() for one in placed]
    return moved(torch.stack(logits), target, source, found.target, found.source, pair.answers).effects


def putting(source: Recorded, placed: Placed) -> dict[Any, Callable[[Any], None]]:
    """A patch as a change of one site."""
    (site,), columns = placed.patch.sites, list(placed.columns)

    def put(values: Any) -> None:
        values[0, columns] = source.values[site][columns]

    return {site: put}


def lens(folder: Path) -> None:
    """The same sweep by TransformerLens, on the same weights."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model = TransformerBridge.boot_transformers(str(folder), device="cpu")
    # names as in HookedTransformer; weights stay as they are, so that values are the model's own
    model.enable_compatibility_mode(no_processing=True)
    pair = json.loads((folder / "pair.json").read_text())
    rounds = [timed(lambda: list(by_lens(model, pair))) for _ in range(ROUNDS)]
    seconds = [one for one, _ in rounds]
    found = {"seconds": seconds, "times_faster": median(seconds) / median(pair["seconds"])}
    print(json.dumps({**found, "largest_difference": worst(rounds[0][1], pair["effects"])}))


def by_lens(model: Any, pair: dict[str, Any]) -> Iterator[float]:
    """Effects in the order of `everywhere`."""
    import torch
    from transformer_lens import patching

    source, target = (torch.tensor([pair[name]]) for name in ("source", "target"))
    logits, cache = model.run_with_cache(source)
    low, high = leading(model(target), pair), leading(logits, pair)

    def effect(logits: Any) -> Any:
        return (leading(logits, pair) - low) / (high - low)

    # theirs patches in front of a layer, ours behind it: layers 2 to L, and after the last one by hand
    residual = patching.get_act_patch_resid_pre(model, target, cache, effect)[1:].tolist()
    mlp = patching.get_act_patch_mlp_out(model, target, cache, effect).tolist()
    attention = patching.get_act_patch_attn_out(model, target, cache, effect).tolist()
    last = [0.0] * (target.shape[1] - 1) + [1.0]
    for row in (*residual, last, *mlp, *attention):
        yield from row


def leading(logits: Any, pair: dict[str, Any]) -> Any:
    """The logit of the source's answer less that of the target's."""
    a, b = pair["answers"]
    return logits[0, -1, a] - logits[0, -1, b]


def worst(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of two effects."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def timed(run: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Processor seconds, and the result."""
    begun = process_time()
    found = run()
    return process_time() - begun, found


if __name__ == "__main__":
    (own if sys.argv[1] == "own" else lens)(Path(sys.argv[2]), *sys.argv[3:])
