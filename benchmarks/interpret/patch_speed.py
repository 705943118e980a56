"""A sweep over layers and tokens: ours, one patch in each whole pass, and TransformerLens.

    python -m benchmarks.interpret.patch_speed own MODEL [DEVICE]
    PYTHON-WITH-TRANSFORMER-LENS-AS-WELL -m benchmarks.interpret.patch_speed lens MODEL [EVERY]

MODEL: `demo`, a GGUF file or a folder. The first pair of the built-in ones (SmolLM2: one about dishes),
every layer's residual stream, MLP and attention at every token; EVERY: of every so many layers, without the
last. Equal numbers are part of the test: effects have to agree within 1e-4. Rounds alternate, and ratios are
within a round: of processor time, on a GPU of its own time from an idle device to the end of all work.
TransformerLens gets the weights from a folder that ours writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from guardrail.bench.clocks import Stopwatch, clock_of, cpu_clock

if TYPE_CHECKING:
    from guardrail.extract.subject import Subject
    from guardrail.interpret.patching.pairs import Pair
    from guardrail.interpret.patching.runs import Placed, Recorded

ROUNDS = 3
PARTS = ("resid", "mlp", "attn")
Sweep = Callable[[], list[float]]


def own(model: str, device: str = "cpu") -> None:
    """The sweep, and one patch in each pass."""
    subject, pair = loaded(model, device)
    placed = everywhere(pair, range(1, subject.layers + 1))
    print(json.dumps({"patches": len(placed), "tokens": pair.tokens, "layers": subject.layers}))
    report(
        lambda: together(subject, pair, placed),
        lambda: alone(subject, pair, placed),
        device,
    )


def lens(model: str, every: str = "1") -> None:
    """The sweep, and that of TransformerLens on the same weights."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    subject, pair = loaded(model)
    torch.set_grad_enabled(False)
    layers = range(int(every), subject.layers, int(every))
    placed = everywhere(pair, layers)
    with TemporaryDirectory() as folder:
        subject.model.float().save_pretrained(folder)
        subject.tokenizer.save_pretrained(folder)
        theirs = TransformerBridge.boot_transformers(folder, device="cpu")
    # names as in HookedTransformer; weights stay as they are, so that values are the model's own
    theirs.enable_compatibility_mode(no_processing=True)
    answers = answer_tokens(subject, pair)
    print(json.dumps({"patches": len(placed), "tokens": pair.tokens, "layers": list(layers)}))
    report(
        lambda: together(subject, pair, placed),
        lambda: list(by_lens(theirs, pair, answers, layers)),
    )


def report(ours: Sweep, other: Sweep, device: str = "cpu") -> None:
    """Rounds of two sweeps, in turns; prints seconds, ratios and the largest difference of an effect."""
    clock = cpu_clock() if device == "cpu" else clock_of(device)[1]
    rounds = [(timed(ours, clock), timed(other, clock)) for _ in range(ROUNDS)]
    ratios = [second[0] / first[0] for first, second in rounds]
    found = {
        "seconds": [first[0] for first, _ in rounds],
        "seconds_other": [second[0] for _, second in rounds],
        "times_faster": median(ratios),
        "least_and_most": [min(ratios), max(ratios)],
        "largest_difference": worst(rounds[0][0][1], rounds[0][1][1]),
    }
    print(json.dumps(found))


def loaded(model: str, device: str = "cpu") -> tuple[Subject, Pair]:
    """A model, on one thread of a CPU, and its pair."""
    import torch

    from guardrail.extract.subject import Subject

    torch.set_num_threads(1)
    subject = Subject.load(model, device=device)
    return subject, first_pair(subject, "chat" if model == "demo" else "text")


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


def everywhere(pair: Pair, layers: Sequence[int]) -> list[Placed]:
    """Some layers' values, at one token each."""
    from guardrail.interpret.patching.patches import Patch
    from guardrail.interpret.patching.runs import Placed

    places = [(part, n, at) for part in PARTS for n in layers for at in range(pair.tokens)]
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


def by_lens(model: Any, pair: Pair, answers: tuple[int, int], layers: Sequence[int]) -> Iterator[float]:
    """Effects in the order of `everywhere`. Not for the last layer, behind which theirs has no residual."""
    import pandas as pd
    import torch
    from transformer_lens import patching

    source, target = (torch.tensor([ids]) for ids in (pair.source, pair.target))
    logits, cache = model.run_with_cache(source)
    low, high = leading(model(target), answers), leading(logits, answers)

    def effect(logits: Any) -> Any:
        return (leading(logits, answers) - low) / (high - low)

    # theirs counts layers from 0, and patches the residual in front of a layer, ours behind it
    for name, offset in (("resid_pre", 0), ("mlp_out", -1), ("attn_out", -1)):
        places = [(n + offset, at) for n in layers for at in range(target.shape[1])]
        yield from patching.generic_activation_patch(
            model,
            target,
            cache,
            effect,
            patching.layer_pos_patch_setter,
            name,
            index_df=pd.DataFrame(places, columns=["layer", "pos"]),
        ).tolist()


def leading(logits: Any, answers: tuple[int, int]) -> Any:
    """The logit of the source's answer less that of the target's."""
    a, b = answers
    return logits[0, -1, a] - logits[0, -1, b]


def worst(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of two effects."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def timed(run: Sweep, clock: Stopwatch) -> tuple[float, list[float]]:
    """Seconds, and the result."""
    found: list[float] = []
    laps = clock(lambda: found.extend(run()))
    return laps.total / 1e3, found


if __name__ == "__main__":
    {"own": own, "lens": lens}[sys.argv[1]](*sys.argv[2:])
