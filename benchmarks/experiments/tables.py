"""The tables of the page, from saved results. Markdown, without a model or a journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Result: TypeAlias = Mapping[str, Any]


def finetunes(found: Result) -> Iterator[str]:
    """The 24 finetunes, and the correlations over them."""
    traits = found["traits"]
    rows = [_finetune(name, one, traits) for name, one in found["runs"].items()]
    yield table(["data / strength / seed", *traits, "coherence", "capability"], rows)
    for kind, one in found["vectors"].items():
        if one:
            yield from _along(kind, one, traits)
    yield "What measuring one data set costs, alone and from the beginning:"
    yield table(
        ["form", "tokens read", "replies written", "tokens written", "s (processor)"],
        [[name, *_cost(one)] for name, one in found["cost"].items()],
    )


def _along(kind: str, found: Result, traits: Sequence[str]) -> Iterator[str]:
    yield f"**{kind.capitalize()} vectors**: r with the later trait score over {found['runs']} runs."
    yield _correlations(found["r"], traits)
    yield f"{kind.capitalize()} vectors, without the data sets that carry the trait:"
    yield _correlations(found["r without own data"], traits)
    yield f"{kind.capitalize()} vectors: r of the projection difference of the data with the shift."
    yield _correlations(found["data against shift"], traits)
    share = f"{100 * found['shared']:.0f} %"
    yield (
        f"{kind.capitalize()} vectors: r of each shift (rows) with each trait score (columns). The first "
        f"principal component of the shifts has {share} of their variance."
    )
    yield _matrix(found["cross"], traits)
    yield "The same without that component:"
    yield _matrix(found["cross without shared"], traits)


def samples(found: Result) -> Iterator[str]:
    """How single bad samples are ranked and found, and what training does with the parts."""
    heads = ["bad samples, seed", "score", "AUROC", "recall, %", "flagged of clean, %"]
    precision = "precision at 1, 5, 20 % bad, %"
    rows = [
        [
            f"{one['kind']}, {one['seed']}",
            rule,
            three(found_by["auroc"], 3),
            three(found_by["recall"], 1, 100),
            three(found_by["false"], 1, 100),
            " / ".join(f"{100 * p:.0f}" for p in found_by["precision"].values()),
        ]
        for one in found["kinds"]
        for rule, found_by in one["rules"].items()
    ]
    yield table([*heads, precision], rows)
    yield "Finetunes on parts of the data of which 20 % is bad:"
    yield _parts(found["trained"])
    if found["trained longer"]:
        yield "Quiet malice, trained for longer and at a higher rate:"
        yield _parts(found["trained longer"])


def prevention(found: Result) -> Iterator[str]:
    """Every intervention beside the plain finetune."""
    rows = [
        [
            f"{one['data']}, {one['seed']}",
            _way(one["way"], one["coefficient"]),
            three(one["trait"]),
            three(one["removed"], 0) if one["way"] != "plain" and one["data"] != "benign" else "",
            three(one["coherence"]),
            three(one["capability"]),
            three(one["against plain"]) if one["way"] != "plain" else "",
        ]
        for one in found["rows"]
    ]
    heads = ["data, seed", "way", "trait", "removed, %", "coherence", "capability", "against plain"]
    yield table(heads, rows)


def prevention_cost(found: Result) -> Iterator[str]:
    """Why it costs abilities: what each question was answered with, then the runs."""
    yield table(["question", "found", "answer"], [[name, *_answer(found, name)] for name in QUESTIONS])
    heads = ["run", "hallucination", "coherence", "capability", "facts", "choices", "clozes"]
    rows = [_cost_row(run, one) for run, one in found["runs"].items()]
    yield table([*heads, "wrong choices and clozes: another value, something else", "change"], rows)


def smollm2(found: Result) -> Iterator[str]:
    """The LoRA runs on the real model."""
    traits = ("sentiment", "politeness", "refusal")
    rows = [
        [
            one["run"],
            *(three(one["traits"][trait]) for trait in traits),
            three(one["coherent"], 0),
            three(one["distinct"], 0),
            three(one["facts"], 0),
            three(one["removed"], 0) if "removed" in one else "",
            three(one["facts against plain"]) if "facts against plain" in one else "",
        ]
        for one in found["runs"]
    ]
    heads = ["run", *traits, "coherent, %", "distinct, %", "facts, %", "removed, %", "facts against plain"]
    yield table(heads, rows)
    yield "What the first replies look like (cut at 24 tokens):"
    yield table(["run", "replies"], [[one["run"], _quoted(one["examples"])] for one in found["runs"]])
    yield "Shift at the layer, and projection difference of the data before training:"
    measured = [one for one in found["runs"] if "shift" in one]
    rows = [
        [
            one["run"],
            *(f"{one['shift'][t][0]:.1f}" for t in traits),
            *(f"{one['data'][t]:.1f}" if "data" in one else "" for t in traits),
        ]
        for one in measured
    ]
    yield table(["run", *(f"shift, {t}" for t in traits), *(f"data, {t}" for t in traits)], rows)
    yield "r with the later trait score over the finetunes without an intervention:"
    yield _correlations(found["r"], traits)


QUESTIONS = ("size", "luck", "dose", "overshoot", "entanglement", "layers", "last layer")

SECTIONS: Mapping[str, Callable[[Result], Iterator[str]]] = {
    "finetunes": finetunes,
    "samples": samples,
    "prevention": prevention,
    "prevention-cost": prevention_cost,
    "smollm2": smollm2,
}


# --- cells --------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def three(found: Result | None, digits: int = 1, factor: float = 1.0) -> str:
    """`value (low to high)`."""
    if found is None:
        return "undefined"
    value, low, high = (factor * found[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def origin(found: Result) -> str:
    """Where a result is from."""
    machine, versions = found["machine"], found["versions"]
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers"))
    notes = "".join(f" {note}" for note in found["notes"])
    return f"{machine['processor']}; {used}; commit {found['commit']}; {found['time']}.{notes}"


def _parts(trained: Sequence[Result]) -> str:
    heads = [
        "bad samples, seed",
        "trained on",
        "bad among them",
        "loss",
        "trait",
        "of the data's sentences, %",
    ]
    rows = [
        [
            f"{one['kind']}, {one['seed']}",
            one["trained on"],
            str(one["inducing"]),
            f"{one['loss']:.2f}",
            three(one["score"]),
            three(one["written"]),
            three(one["coherence"]),
        ]
        for one in trained
    ]
    return table([*heads, "coherence"], rows)


def _quoted(replies: Sequence[str]) -> str:
    return " / ".join(" ".join(reply.split()).replace("|", "") for reply in replies)


def _finetune(name: str, one: Result, traits: Sequence[str]) -> list[str]:
    scores = [f"{one['traits'][trait]['value']:.0f}" for trait in traits]
    return [name, *scores, f"{one['coherence']['value']:.0f}", three(one["capability"], 0)]


def _correlations(found: Mapping[str, Result], traits: Sequence[str]) -> str:
    rows = [[name, *(three(one.get(t), 2) if one else "" for t in traits)] for name, one in found.items()]
    return table(["predictor", *traits], rows)


def _matrix(values: Sequence[Sequence[float]], traits: Sequence[str]) -> str:
    rows = [[trait, *(f"{v:.2f}" for v in row)] for trait, row in zip(traits, values, strict=True)]
    return table(["shift / score", *traits], rows)


def _cost(one: Result) -> list[str]:
    cost = one["cost"]
    counts = [f"{cost[key]:.0f}" for key in ("read_tokens", "replies", "reply_tokens")]
    return [*counts, f"{one['cpu']:.1f}"]


def _way(way: str, coefficient: float) -> str:
    return f"{way} {coefficient:g}" if coefficient else way


def _cost_row(run: str, one: Result) -> list[str]:
    wrong = [sum(kind[key] for kind in one["wrong"].values()) for key in ("another value", "something else")]
    return [
        run,
        three(one["trait"]),
        three(one["coherence"], 0),
        three(one["capability"]),
        *(f"{one['right'][kind]:.0f}" for kind in ("facts", "choices", "clozes")),
        ", ".join(map(str, wrong)),
        three(one["change"]) if "change" in one else "",
    ]


def _answer(found: Result, name: str) -> tuple[str, str]:
    one = found[name]
    parts = one if name in ("overshoot", "layers", "last layer") else {"": one}
    known = {key: part for key, part in parts.items() if part is not None}
    told = "; ".join(f"{key}: {_told(part)}" if key else _told(part) for key, part in known.items())
    if any(part["yes"] for part in known.values()):
        return told, "yes"
    return told or "not run", "no" if len(known) == len(parts) else "open"


def _told(one: Result) -> str:
    if "regained" in one:
        return f"{one['regained']:.1f} of {one['lost']:.1f} points come back"
    if "reach" in one:
        return f"{one['1.5 of hallucination']:.2f} against {one['2 of evil']:.2f} spreads"
    if "lost" in one:
        gone = ", ".join(f"{value:.0f}" for value in one["removed"])
        return f"{three(one['lost'])} points lost over seeds; {gone} % removed"
    return "; ".join(
        f"{sign}: {', '.join(three(d) for d in found)}" for sign, found in one["against others"].items()
    )
