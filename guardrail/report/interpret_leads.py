"""What reports of `guardrail interpret` begin with: what was found, and what that does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guardrail.interpret.accuracy.results import AccuracyResult
from guardrail.interpret.heads.results import AblationResult, HeadStudy
from guardrail.interpret.lens.notes import hardly_answered
from guardrail.interpret.lens.results import LensResult
from guardrail.interpret.patching.pairs import counted
from guardrail.interpret.patching.patches import PARTS, SCOPES
from guardrail.interpret.patching.results import HEAD_TOKENS, PatchResult
from guardrail.interpret.recommending.results import Recommended
from guardrail.report.leads import several
from guardrail.report.page import Lead
from guardrail.statistics.intervals import Estimate

SURE = 0.05
HALF = 0.5
PLACES = {"identity": "the identity's tokens", "all": "all tokens", "others": "all tokens but the identity's"}
NAMES = {"mlp": "MLP", "attn": "attention"}
ABOUT = {
    "patching": "This holds for these pairs; other prompts may take other ways through the model.",
    "heads": "Attending to a word does not show that the answer depends on it, nor that it is biased.",
    "lens": "S rewards answers that come early. It does not show that the model knows more with a persona.",
    "accuracy": "This holds for these items, asked in this way.",
    "recommended": "Thresholds have to be calibrated again, and detection measured on your own prompts.",
}
"""What each result does not show."""


def patching(found: PatchResult) -> Lead:
    """Which single output moves answers most, and how far up the identity's own tokens hold the effect."""
    about = found.about
    if not about.pairs:
        reason, count = next(iter(counted(about.rejects).items()), ("there was none", 0))
        return Lead(f"No pair could be patched: {reason} ({count} of {len(about.rejects)}).", "warn")
    way = about.directions[0]
    told = [*_strongest(found, way), *_held(found, way), *_head(found, way)]
    return Lead(" ".join(told or [f"{len(about.patches)} patches were made."]) + f" {ABOUT['patching']}")


def _strongest(found: PatchResult, way: str) -> Iterator[str]:
    effects = [
        (effect, NAMES[part], layer, place)
        for part in PARTS
        for where, place in PLACES.items()
        if where in SCOPES
        for layer, effect in found.layer(part, where, way).items()
    ]
    if not effects:
        return
    effect, name, layer, place = max(effects, key=lambda one: one[0].value)
    pairs = len(found.about.pairs)
    if effect.low <= 0:
        yield f"No single output of a layer is shown to move answers, over {pairs} pairs."
        return
    yield (
        f"Of {len(effects)} single outputs, the {name} of layer {layer} at {place} moves answers most: "
        f"{_percents(effect)} of the way to the other persona's answer, over {pairs} pairs ({way})."
    )


def _held(found: PatchResult, way: str) -> Iterator[str]:
    curve = found.layer("resid", "identity", way)
    if most := [layer for layer, effect in curve.items() if effect.low > HALF]:
        yield f"The identity's own tokens carry more than half of the effect up to layer {max(most)}."
    elif curve:
        yield "After no layer is more than half of the effect shown to be held by the identity's own tokens."


def _head(found: PatchResult, way: str) -> Iterator[str]:
    where = next(iter(found.head_tokens), "")
    effects = found.heads(where, way)
    if shown := [(patch, effect) for patch, effect in effects.items() if effect.low > 0]:
        patch, effect = shown[0]
        name = f"{patch.layers[0]}.{patch.head}"
        yield (
            f"Of {len(effects)} heads, {name} alone, at {HEAD_TOKENS[where]}, moves answers most: "
            f"{_percents(effect)} of the way."
        )
    elif effects:
        yield f"No single head of {len(effects)} is shown to move answers."


def heads(study: HeadStudy, found: AblationResult | None) -> Lead:
    """How many heads attend to each group, the strongest, and what scaling heads did."""
    groups = [_group(study, group) for group in study.groups]
    told = [*groups, *(_scaled(found) if found else ())]
    about = ABOUT["heads"] if groups else f"What heads attend to was not read: {'; '.join(study.notes)}."
    return Lead(" ".join([*told, about]), "warn" if study.strongest() else "")


def _group(study: HeadStudy, group: str) -> str:
    counts = study.concentration[group]
    if not (strongest := study.strongest(group)):
        return f"No head of {counts.heads} is shown to attend to words of {group} more than to neutral words."
    most = strongest[0]
    return (
        f"{counts.found} of {counts.heads} heads attend to words of {group} more than to neutral words, "
        f"{most.head} most: {_percents(most.word)} of its attention against {100 * most.neutral:.1f} %."
    )


def _scaled(found: AblationResult) -> Iterator[str]:
    accuracy = found.scaled.accuracy_change
    changes = [
        f"the effect of {group} by {_points(one)}" for group, one in found.scaled.effect_change.items()
    ]
    yield (
        f"Heads {several([str(head) for head in found.heads])} times {found.factor:g} change accuracy by "
        f"{_points(accuracy)}, {', '.join(changes)} percentage points, on {found.items} items."
    )


def lens(found: Sequence[LensResult]) -> Lead:
    """In which tasks each model settles earlier with its persona, and against the persona of another item."""
    first = [one for one in found if one.lens == "logit"] or list(found)
    models = list(dict.fromkeys(one.model for one in first))
    told = [_model(name, [one for one in first if one.model == name]) for name in models]
    cannot = [_cannot(name, [one for one in first if one.model == name]) for name in models]
    return Lead(" ".join([*filter(None, cannot), *told, ABOUT["lens"]]), "warn" if any(cannot) else "")


def _cannot(name: str, tasks: Sequence[LensResult]) -> str:
    hardly = [
        f"{one.task} ({_percents(one.accuracy['with'])} right)" for one in tasks if hardly_answered(one)
    ]
    return f"{name} cannot do {several(hardly)}: S says next to nothing there." if hardly else ""


def _model(name: str, tasks: Sequence[LensResult]) -> str:
    plain = [(one.task, one.contrast("without", "dataset").by_share[-1]) for one in tasks]
    other = [one.task for one in tasks if one.contrast("other", "dataset").by_share[-1].low > 0]
    raised = [f"{task} ({_signed(change)})" for task, change in plain if change.low > 0]
    lowered = [f"{task} ({_signed(change)})" for task, change in plain if change.high < 0]
    told = [f"raises S of {several(raised)}"] if raised else []
    told += [f"lowers S of {several(lowered)}"] if lowered else []
    beats = f"the persona of another item is beaten in {several(other)}" if other else ""
    beats = beats or "it is not shown to beat the persona of another item"
    return f"{name}: a persona {' and '.join(told) or 'is not shown to change S'}; {beats}."


def accuracy(found: AccuracyResult) -> Lead:
    """How many personas change the accuracy, the largest change, and on how many items answers differ."""
    effects = {one.name: one.effect for one in found.personas if one.effect}
    moved = {name: effect for name, effect in effects.items() if effect.q < SURE}
    differ = f"Their answers differ on {len(found.changed)} of {len(found.items)} items. {ABOUT['accuracy']}"
    if not moved:
        none = f"None of {len(effects)} personas is shown to change how many items are answered correctly"
        return Lead(f"{none}. {differ}")
    name = max(moved, key=lambda one: abs(moved[one].difference.value))
    return Lead(
        f"{len(moved)} of {len(effects)} personas change how many items are answered correctly, {name} most: "
        f"{_points(moved[name].difference)} percentage points. {differ}",
        "warn",
    )


def recommended(found: Recommended) -> Lead:
    """Which layers are recommended, and for which traits the evidence disagrees."""
    places = [f"layer {one.layer} for {one.trait}" for one in found.traits if one.layer is not None]
    told = [f"Policies should read {several(places, len(places))}"] if places else []
    apart = [one.trait for one in found.traits if one.layer is not None and one.disagreeing]
    none = [one.trait for one in found.traits if one.layer is None]
    uncaused = [one.trait for one in found.traits if "causal" in one.silent and one.layer is not None]
    told += [f"The evidence disagrees for {several(apart)}"] if apart else []
    told += [f"It is not shown that replies depend on the vector of {several(uncaused)}"] if uncaused else []
    told += [f"No layer can be recommended for {several(none)}"] if none else []
    told.append(ABOUT["recommended"].rstrip("."))
    return Lead(". ".join(told) + ".", "bad" if none else "warn" if apart or uncaused else "good")


def _percents(value: Estimate) -> str:
    return f"{100 * value.value:.1f} % (95 %: {100 * value.low:.1f} to {100 * value.high:.1f})"


def _points(value: Estimate) -> str:
    return f"{100 * value.value:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def _signed(value: Estimate) -> str:
    return f"{value.value:+.3f}, 95 %: {value.low:+.3f} to {value.high:+.3f}"
