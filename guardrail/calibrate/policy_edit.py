"""Writes thresholds, layers and modes into a policy file, and keeps every other byte of its text."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.calibrate.proposals import Thresholds
from guardrail.errors import PolicyError, Problem
from guardrail.files.whole import write_whole
from guardrail.files.yaml import KeyPath, nodes, parse_document
from guardrail.policy.model import FprThreshold, PercentileThreshold, RawThreshold, Threshold

BOM = b"\xef\xbb\xbf"
PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*[A-Za-z0-9_./-]")


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the file: its path, its old text and its new text, both YAML."""

    path: KeyPath
    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEdit:
    """A policy file before and after; nothing is written until `write`."""

    path: Path
    before: str = field(repr=False)
    after: str = field(repr=False)
    changes: tuple[Change, ...]
    bom: bool = False

    def diff(self) -> str:
        """A unified diff; empty if nothing changes."""
        name = self.path.as_posix().lstrip("/")
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"a/{name}",
            f"b/{name}",
        )
        return "".join(f"{line}" if line.endswith("\n") else f"{line}\n\\ No newline\n" for line in lines)

    def write(self) -> None:
        """Replace the file in one step. Raises PolicyError if it changed since it was read."""
        target = self.path.resolve()
        content = (BOM if self.bom else b"") + self.after.encode("utf-8")
        if _read(target) != (self.before, self.bom):
            raise PolicyError.single(
                "changed while it was being calibrated; nothing was written", str(target)
            )
        write_whole(target, content)


def edit(path: Path, thresholds: Thresholds, calibration: Path | None = None) -> PolicyEdit:
    """The edit that sets these thresholds, and `calibration:` if a file is given.

    Raises PolicyError if a value cannot be replaced on its own, for example one shared through an alias.
    """
    text, bom = _read(path)
    values = {_leaf(place, threshold): _number(threshold) for place, threshold in thresholds.items()}
    scalars = dict(_scalars(text, str(path)))
    name = None if calibration is None else _relative(calibration, path)
    if name is not None and ("calibration",) in scalars:
        values["calibration",] = _quoted(name)
    changes, after = _replaced(text, values, scalars, str(path))
    if name is not None and ("calibration",) not in scalars:
        after = _inserted(after, f"calibration: {_quoted(name)}", str(path))
        changes = (*changes, Change(("calibration",), "", _quoted(name)))
    made = PolicyEdit(path=path, before=text, after=after, changes=changes, bom=bom)
    _check(made)
    return made


def enforced(path: Path, policy: str) -> PolicyEdit:
    """The edit that takes one policy, by its id, out of the shadow: `mode: enforce`.

    Raises PolicyError if there is no such policy, or its file cannot be edited in this one place.
    """
    text, bom = _read(path)
    document = parse_document(text, str(path))
    ids = [value for place, value in _values(document.data) if place[::2] == ("policies", "id")]
    if policy not in ids:
        raise PolicyError.single(f"there is no policy `{policy}` any more", str(path))
    place: KeyPath = ("policies", ids.index(policy), "mode")
    scalars = dict(_scalars(text, str(path)))
    if place in scalars:
        changes, after = _replaced(text, {place: "enforce"}, scalars, str(path))
    else:
        line = document.places[(*place[:-1], "id")][0]
        changes, after = (Change(place, "", "enforce"),), _below(text, line, "mode: enforce")
    made = PolicyEdit(path=path, before=text, after=after, changes=changes, bom=bom)
    _check(made)
    return made


def layered(path: Path, layers: Mapping[str, int]) -> PolicyEdit:
    """The edit that makes every policy on prompts read these traits at these layers.

    Raises PolicyError if the file cannot be edited in these places.
    """
    text, bom = _read(path)
    places = [place for place, trait in _conditions(parse_document(text, str(path)).data) if trait in layers]
    scalars = dict(_scalars(text, str(path)))
    traits = {place: scalars[*place, "trait"].value for place in places if (*place, "trait") in scalars}
    wanted = {(*place, "layer"): str(layers[trait]) for place, trait in traits.items()}
    there = {place: layer for place, layer in wanted.items() if place in scalars}
    changes, after = _replaced(text, there, scalars, str(path))
    # from the end, so that the places before it stay
    for place in sorted(wanted.keys() - there.keys(), reverse=True, key=lambda p: _end(scalars, p)):
        after = _with_layer(after, str(path), place, wanted[place])
        changes = (*changes, Change(place, "", wanted[place]))
    made = PolicyEdit(path=path, before=text, after=after, changes=changes, bom=bom)
    _check(made)
    return made


def _conditions(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, object]]:
    """(path, trait) of everything in the policies on prompts that names a trait to read."""
    for i, policy in enumerate(data.get("policies") or ()):
        if policy.get("stage", "prompt") == "prompt":
            yield ("policies", i), policy.get("trait")
            for several in ("all_of", "any_of"):
                for j, condition in enumerate(policy.get(several) or ()):
                    yield ("policies", i, several, j), condition.get("trait")


def _end(scalars: Mapping[KeyPath, Any], place: KeyPath) -> int:
    return scalars[*place[:-1], "trait"].end_mark.index


def _with_layer(text: str, source: str, place: KeyPath, layer: str) -> str:
    """`layer` behind the trait, on a line of its own unless the mapping is written in braces."""
    trait = dict(_scalars(text, source))[*place[:-1], "trait"]
    end = trait.end_mark.index
    if _node(text, source, place[:-1]).flow_style:
        return f"{text[:end]}, layer: {layer}{text[end:]}"
    return _below(text, trait.start_mark.line + 1, f"layer: {layer}")


def _node(text: str, source: str, path: KeyPath) -> Any:
    node = nodes(text, source)
    for key in path:
        within = node.value if node.id == "sequence" else {name.value: value for name, value in node.value}
        node = within[key]
    return node


def _below(text: str, number: int, added: str) -> str:
    """A line more below a line (from 1) that begins a block or is in one, indented like its key."""
    lines = text.splitlines(keepends=True)
    line = lines[number - 1]
    indent = " " * (len(line) - len(line.lstrip(" -")))
    end = "\r\n" if line.endswith("\r\n") else "\n"
    start = "" if line.endswith("\n") else end
    return "".join((*lines[:number], f"{start}{indent}{added}{end}", *lines[number:]))


def _read(path: Path) -> tuple[str, bool]:
    try:
        content = path.read_bytes()
        return content.removeprefix(BOM).decode("utf-8"), content.startswith(BOM)
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError.single(f"cannot be read: {error}", str(path)) from error


def _leaf(place: KeyPath, threshold: Threshold) -> KeyPath:
    if isinstance(threshold, FprThreshold):
        return (*place, "fpr")
    if isinstance(threshold, RawThreshold):
        return (*place, "raw")
    return (*place, "percentile") if isinstance(threshold, PercentileThreshold) else place


def _number(threshold: Threshold) -> str:
    if isinstance(threshold, FprThreshold):
        value: float = threshold.fpr
    elif isinstance(threshold, RawThreshold):
        value = threshold.raw
    else:
        value = threshold.percentile if isinstance(threshold, PercentileThreshold) else threshold
    text = f"{value:.15g}"
    return text if "e" not in text else f"{value:.15f}".rstrip("0")


def _scalars(text: str, source: str) -> Iterator[tuple[KeyPath, Any]]:
    """(path, node) of every scalar. A scalar repeated by an alias appears under each of its paths."""

    def walk(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
        if node.id == "mapping":
            for key, value in node.value:
                yield from walk(value, (*path, key.value))
        elif node.id == "sequence":
            for i, value in enumerate(node.value):
                yield from walk(value, (*path, i))
        else:
            yield path, node

    return walk(nodes(text, source), ())


def _changeable(path: KeyPath, values: Mapping[KeyPath, str], scalars: Mapping[KeyPath, Any]) -> bool:
    """Whether this value stands in the file, and is not also one that keeps its value, or gets another."""
    node = scalars.get(path)
    same = [values.get(p) == values[path] for p, n in scalars.items() if n is node]
    return node is not None and all(same)


def _replaced(
    text: str, values: Mapping[KeyPath, str], scalars: Mapping[KeyPath, Any], source: str
) -> tuple[tuple[Change, ...], str]:
    for path in values:
        if not _changeable(path, values, scalars):
            message = "this value comes from an alias or a merge; write it out so that it can be changed"
            raise parse_document(text, source).error([Problem(message, path)])
    found = {path: scalars[path] for path in values}
    spans = {p: (n.start_mark.index, n.end_mark.index) for p, n in found.items()}
    changes = [Change(p, text[a:b], values[p]) for p, (a, b) in spans.items()]
    kept = tuple(change for change in changes if not _same(change))
    return kept, _spliced(text, {spans[change.path]: change.new for change in kept})


def _same(change: Change) -> bool:
    try:
        return float(change.old) == float(change.new)
    except ValueError:
        return change.old == change.new


def _spliced(text: str, pieces: Mapping[tuple[int, int], str]) -> str:
    for (start, end), new in sorted(pieces.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _relative(calibration: Path, policy: Path) -> str:
    return Path(os.path.relpath(calibration.resolve(), policy.resolve().parent)).as_posix()


def _quoted(name: str) -> str:
    return name if PLAIN.fullmatch(name) and not name.endswith(" ") else json.dumps(name, ensure_ascii=False)


def _inserted(text: str, line: str, source: str) -> str:
    """A new line below that of `vectors`, or of `version`."""
    places = parse_document(text, source).places
    above = places.get(("vectors",)) or places["version",]
    lines = text.splitlines(keepends=True)
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    start = "" if lines[above[0] - 1].endswith("\n") else end
    return "".join((*lines[: above[0]], start + line + end, *lines[above[0] :]))


def _check(made: PolicyEdit) -> None:
    """Read the result back and check that only the requested values differ."""
    before = dict(_values(parse_document(made.before, str(made.path)).data))
    try:
        after = dict(_values(parse_document(made.after).data))
    except PolicyError:
        after = dict[KeyPath, object]()
    different = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    if different != {change.path for change in made.changes}:
        text = "a file in this style cannot be edited automatically; change it yourself: "
        wanted = ", ".join(f"{Problem('', c.path).key}: {c.new}" for c in made.changes)
        raise PolicyError.single(text + wanted, str(made.path))


def _values(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _values(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _values(item, (*path, i))
    else:
        yield path, value
