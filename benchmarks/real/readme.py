"""Keeps the tables of benchmarks/real/README.md equal to the committed results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.real.results import FOLDER

README = Path(__file__).parent / "README.md"
Result: TypeAlias = Mapping[str, Any]
MISSING = "Not measured yet."


def refresh() -> None:
    """Write the tables again."""
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """The text with the current tables between its markers."""
    for name, section in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        before, rest = text.split(begin, 1)
        parts = ["\n\n".join(section(found)) for found in _results(name)] or [MISSING]
        text = before + begin + "\n" + "\n\n".join(parts) + "\n\n" + end + rest.split(end, 1)[1]
    return text


def _results(name: str) -> list[Result]:
    files = sorted(FOLDER.glob(f"{name}*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


# --- sections -----------------------------------------------------------------------------------------


def _detection(found: Result) -> Iterator[str]:
    yield f"**{found['model']}**. {_origin(found)}"
    asked = found["detectors"][0]["worst"].keys()
    texts = [one for text in _results("text-guard") for one in text["detectors"]]
    # what sees no activations has the same numbers beside every model that was asked about the same sets
    detectors = [*found["detectors"], *(one for one in texts if one["worst"].keys() == asked)]
    yield from _detectors(detectors)
    for one in detectors:
        if one["chosen"]:
            yield f"`{one['detector']}` chose: {one['chosen'][0]}"


def _more_twins(found: Result) -> Iterator[str]:
    yield f"**{found['model']}**, {found['dtype']}. {_origin(found)}"
    rows = [
        [one["detector"], _number(one["auroc"], 3), _number(one["gain"], 3)] for one in found["validation"]
    ]
    yield _table(["validation: twins of unseen kinds", "AUROC", "gain"], rows)
    yield from _detectors(found["detectors"])


def _detectors(detectors: Sequence[Result]) -> Iterator[str]:
    for threshold in ("worst", "ordinary"):
        sets = dict.fromkeys(name for one in detectors for name in one[threshold])
        rows = [[name, *(_percent(one[threshold][name]) for one in detectors)] for name in sets]
        yield _table([f"threshold `{threshold}`: fires on", *(one["detector"] for one in detectors)], rows)
    pairs = dict.fromkeys(name for one in detectors for name in one["auroc"])
    rows = [[name, *(_number(one["auroc"].get(name), 3) for one in detectors)] for name in pairs]
    yield _table(["AUROC", *(one["detector"] for one in detectors)], rows)


def _personas(found: Result) -> Iterator[str]:
    evidence = found["evidence"]
    induced = evidence["induction"]
    yield f"**{evidence['trait']}**, {found['model']} in {found['dtype']}. {_origin(found)}"
    rows = [
        ["verdict of the extraction", evidence["verdict"]],
        ["score with, without, not asked", _three(evidence)],
        ["induced difference, by question", _number(induced["difference"], 1)],
        ["pairs kept", f"{evidence['kept']} of {evidence['pairs']}"],
        [
            "kept by chance",
            f"{induced['chance']:.0f}, at most {induced['chance_high']:.0f}; p = {induced['p']:.2g}",
        ],
    ]
    if found.get("failed"):
        rows.append(["not gone on with", found["failed"]])
    if "choice" in found:
        rows.append(["layer", f"{found['choice']['layer']} ({found['choice']['rule']})"])
    if "monitored" in found:
        rows += _monitored(found["monitored"])
    yield _table(["what", "found"], rows)
    if "curve" in found:
        yield _table(
            ["steering", "prompts", "replies", "score", "coherent", "perplexity", "distinct"],
            [_steered(one) for one in found["curve"]],
        )


def _monitored(found: Result) -> list[list[str]]:
    agree = found["replies_agree"]
    return [
        ["prompts, replies each", f"{found['prompts']}, {found['replies']}"],
        ["r of projection and score, overall", _number(found["overall"], 2)],
        ["r within a graded prompt", _number(found["within"], 2)],
        ["r of the graded prompt's name alone", _number(found["label_alone"], 2)],
        ["highest r there can be (overall, within)", _ceiling(agree)],
    ]


def _ceiling(agree: Result | None) -> str:
    if agree is None:
        return "unknown"
    values = (agree["mean"], agree["within_mean"])
    return ", ".join("unknown" if one is None or one < 0 else f"{one**0.5:.2f}" for one in values)


def _steered(one: Result) -> list[str]:
    amount = "" if one["amount"] is None else f" {one['amount']:g}"
    return [
        f"{one['operator']}{amount}",
        one["prompts"],
        str(one["n"]),
        _number(one["trait"], 1),
        _percent(one["coherent"]),
        f"{one['perplexity']:.1f}",
        f"{one['distinct']:.2f}",
    ]


def _judges(found: Result) -> Iterator[str]:
    rows = [
        [
            name,
            _number(one["induction"]["difference"], 1),
            f"{one['kept']} of {one['pairs']}",
            f"{one['induction']['chance']:.0f}, at most {one['induction']['chance_high']:.0f}",
            "goes on" if one["verdict"] == "induced" else "refuses",
        ]
        for name, one in found["judges"].items()
    ]
    yield _table(["judge", "difference", "pairs kept", "by chance", "extraction"], rows)


def _three(evidence: Result) -> str:
    return ", ".join(f"{evidence[name]:.1f}" for name in ("positive_mean", "negative_mean", "baseline"))


def _refusal(found: Result) -> Iterator[str]:
    choice = found["choice"]
    yield f"**{found['model']}**. {_origin(found)}"
    place = f"layer {choice['layer']}, token {choice['position']} from the prompt's end"
    yield f"Chosen: {place} ({choice['rule']})."
    names = ("refusal", "answer", "broken")
    rows = [
        [
            f"{one['prompts']}, {one['steering']}",
            str(one["n"]),
            _percent(one["rule"]),
            *(_percent((one["read"] or {}).get(name)) for name in names),
            str(one["rule_wrong"]) if one["rule_wrong"] is not None else "",
            _percent(one["coherent"]),
            f"{one['perplexity']:.1f}",
        ]
        for one in found["cells"]
    ]
    heads = ["prompts, direction", "replies", "refusals by the rule", *(f"read: {name}" for name in names)]
    yield _table([*heads, "rule wrong", "coherent", "perplexity"], rows)


def _cost(found: Result) -> Iterator[str]:
    yield f"Processor time. {_origin(found)}"
    yield _timed(found["rows"], verdict=True)


def _guards_timed(found: Result) -> Iterator[str]:
    yield f"Processor time. {_origin(found)}"
    yield _timed(found["rows"], verdict=False)


def _tool_results(found: Result) -> Iterator[str]:
    yield f"**{found['model']}**. {_origin(found)}"
    rows = [
        [
            one["detector"],
            _number(one["auroc"], 2),
            _number(one["look_alikes"], 2),
            _percent(one["pairs"]),
        ]
        for one in found["detectors"]
    ]
    heads = ["injections against", "all harmless results: AUROC", "look-alikes: AUROC"]
    yield _table([*heads, "above the same result without one"], rows)


def _timed(rows: Sequence[Result], verdict: bool) -> str:
    heads = ["case", "guarded / bare", "added ms", "bare ms", "pairs"]
    cells = [
        [
            one["name"],
            _between(one["ratio"], 3),
            _between(one["added_ms"], 2),
            f"{one['bare_ms']:.0f}",
            str(one["pairs"]),
        ]
        for one in rows
    ]
    if verdict:
        heads.append("verdict (<= 1.005)")
        for cell, one in zip(cells, rows, strict=True):
            cell.append(one["verdict"])
    return _table(heads, cells)


SECTIONS: Mapping[str, Callable[[Result], Iterator[str]]] = {
    "detection": _detection,
    "more-twins": _more_twins,
    "guards-timed": _guards_timed,
    "tool-results": _tool_results,
    "personas": _personas,
    "judges": _judges,
    "refusal": _refusal,
    "cost": _cost,
}


# --- cells --------------------------------------------------------------------------------------------


def _origin(found: Result) -> str:
    machine, versions = found["machine"], found["versions"]
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "nnsight"))
    notes = "".join(f" {note}" for note in found["notes"])
    return (
        f"{machine['processor']}, {machine['threads']} thread(s), load {machine['load']:.1f}; {used}; commit "
        f"{found['commit']}; {found['time']}.{notes}"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _number(found: Result | None, digits: int) -> str:
    if found is None:
        return "undefined"
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _between(found: Result, digits: int) -> str:
    return f"{found['median']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def _percent(found: Result | None) -> str:
    if found is None:
        return ""
    return f"{100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


if __name__ == "__main__":
    refresh()
