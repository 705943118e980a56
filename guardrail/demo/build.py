# pyright: basic
"""Builds the demo's vectors and calibration. Test phrasings are never seen here.

Steering vectors are differences of mean reply states (strong minus suppressed, kept by the judge), with or
without what the traits share; probes are linear in the last prompt token. Which kind, and which layer, is
chosen on validation phrasings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import numpy as np

from guardrail.calibration import Benign, Calibration
from guardrail.demo import material, probes, world
from guardrail.demo.definitions import TraitDefinition, load_traits
from guardrail.demo.generator import Chat, Conversation, draw_prompt, draw_training_condition
from guardrail.demo.intervals import area
from guardrail.demo.judge import Verdict, judge
from guardrail.demo.recognise import recognise
from guardrail.demo.runner import Generated, Runner
from guardrail.types import Array, Fingerprint, Steering, SteerSpec
from guardrail.vectors import Provenance, TraitSource, TraitVector, TraitVectors, unit

SEED = 20
ROLLOUTS, PROMPTS, REGRESSED, CALIBRATED, CAPPED_TOKENS = 256, 256, 4000, 5000, 2000
NEARLY = 0.005
CAP = SteerSpec(operator="cap", layers="all", percentile=75)
Directions = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A trait's mean difference, and how many replies were kept on either side."""

    difference: Array
    positive: int
    negative: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The probes that validation chose: their kind, and for each trait the layer and its quality by layer."""

    kind: str
    probes: Directions
    layers: Mapping[str, int]
    auroc: Mapping[str, tuple[float, ...]]


def build_contrasts(runner: Runner) -> dict[str, Contrast]:
    """The mean differences of all traits."""
    return {name: contrast(runner, one) for name, one in load_traits().items()}


def build_vectors(
    runner: Runner, fingerprint: Fingerprint, contrasts: Mapping[str, Contrast]
) -> TraitVectors:
    """Fits and chooses everything that the vector file holds."""
    definitions = load_traits()
    choice = choose_probes(runner, probe_candidates(runner, contrasts))
    kind, steering = choose_steering(runner, contrasts)
    offset = np.zeros(runner.layers + 1, np.float32)
    vectors = {
        t: TraitVector(t, steering[t], choice.probes[t], offset, choice.layers[t]) for t in world.TRAITS
    }
    sources = {
        t: TraitSource(
            definition_sha256=definitions[t].sha256,
            positive=contrasts[t].positive,
            negative=contrasts[t].negative,
            detection_auroc=choice.auroc[t],
        )
        for t in world.TRAITS
    }
    provenance = Provenance(
        fingerprint=fingerprint,
        method=f"steering: mean difference, {kind}; probe: {choice.kind}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        position="steering: response_mean; probe: last_prompt_token",
        seeds=(SEED,),
        traits=sources,
        notes="Kinds and layers were chosen on validation phrasings of the demo world.",
    )
    return TraitVectors(vectors, provenance)


def contrast(runner: Runner, definition: TraitDefinition) -> Contrast:
    """Strong minus suppressed, over the reply tokens of rollouts that the judge keeps."""
    with_trait = _kept_means(runner, definition, definition.positive, True)
    without = _kept_means(runner, definition, definition.negative, False)
    return Contrast(probes.difference(with_trait, without), len(with_trait), len(without))


def _kept_means(runner: Runner, definition: TraitDefinition, systems: Sequence[str], positive: bool) -> Array:
    rng = Random(f"{SEED}/{definition.name}/{positive}")
    prompts = [_chat(rng.choice(systems), rng.choice(definition.questions)) for _ in range(ROLLOUTS)]
    replies = runner.replies(prompts, seed=SEED)
    kept = [
        i
        for i, (chat, reply) in enumerate(zip(prompts, replies, strict=True))
        if _keeps(judged(chat, reply), definition.name, positive)
    ]
    states = runner.token_states([prompts[i] for i in kept], [replies[i] for i in kept])
    return np.stack([tokens.mean(axis=0) for tokens in states])


def judged(chat: Chat, reply: Generated) -> Verdict:
    """The judge's verdict on a reply to a prompt of the world."""
    question = recognise(chat)
    assert question is not None, chat
    return judge(question, reply.text, ended=reply.ended)


def axis(verdict: Verdict, trait: str) -> float:
    """A trait's score: that of its own pole minus that of the other pole, if it has one."""
    return sum(world.sign_of(p) * verdict.traits[p] for p in world.poles_of(trait))


def _keeps(verdict: Verdict, trait: str, positive: bool) -> bool:
    return verdict.coherence >= 50 and (axis(verdict, trait) >= 50) == positive


def _chat(system: str, question: str) -> Chat:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def probe_candidates(runner: Runner, contrasts: Mapping[str, Contrast]) -> dict[str, Directions]:
    """Four ways to detect, all from training phrasings."""
    raw = {name: one.difference for name, one in contrasts.items()}
    strong = _strong(runner, "train")
    neutral = runner.states_of(material.benign(SEED, 2 * PROMPTS, "train"))
    return {
        "raw difference": {t: unit(v) for t, v in raw.items()},
        "orthogonalised difference": {t: unit(probes.orthogonalised(t, raw)) for t in raw},
        "joint discriminant": probes.discriminants({t: strong[t] for t in world.TRAITS}, neutral),
        "regression on judged replies": _regressed(runner),
    }


def _strong(runner: Runner, split: world.Split) -> dict[str, Array]:
    return {p: runner.states_of(material.at_level(SEED, PROMPTS, split, p, "strong")) for p in world.POLES}


def _regressed(runner: Runner) -> Directions:
    rng = Random(f"{SEED}/regression")
    drawn = [draw_prompt(rng, draw_training_condition(rng)) for _ in range(REGRESSED)]
    replies = runner.replies([c.messages for c in drawn], seed=SEED)
    verdicts = [judged(c.messages, r) for c, r in zip(drawn, replies, strict=True)]
    scores = {t: np.array([axis(v, t) for v in verdicts], np.float32) for t in world.TRAITS}
    return probes.regressions(runner.states_of(drawn), scores)


def choose_probes(runner: Runner, candidates: Mapping[str, Directions]) -> Choice:
    """The kind with the best mean quality over traits, each at its best layer, on validation phrasings.

    Quality is the mean of AUROC against benign prompts, AUROC against the other strong traits, and the
    correlation with judged replies over mixed conditions; over both poles where there are two.
    """
    strong = _strong(runner, "validation")
    neutral = runner.states_of(material.benign(SEED, 2 * PROMPTS, "validation"))
    graded = {p: _graded(runner, p) for p in world.POLES}
    tables = {
        kind: {t: _quality(t, rows[t], strong, neutral, graded) for t in world.TRAITS}
        for kind, rows in candidates.items()
    }
    for kind, table in tables.items():
        print(f"validation, {kind}:", {t: [round(float(q), 3) for q in rows] for t, rows in table.items()})
    kind = max(tables, key=lambda k: np.mean([rows.max() for rows in tables[k].values()]))
    layers = {t: _earliest(rows) for t, rows in tables[kind].items()}
    areas = {t: _areas(candidates[kind][t], strong[t], neutral) for t in world.TRAITS}
    return Choice(kind, candidates[kind], layers, areas)


def _earliest(quality: Array) -> int:
    """The first layer that is nearly as good as the best: stopping early is what makes a block cheap."""
    return 1 + int(np.argmax(quality >= quality.max() - NEARLY))


def _graded(runner: Runner, pole: str) -> tuple[Array, Array]:
    drawn = material.mixed(SEED, PROMPTS, "validation", pole)
    return runner.states_of(drawn), mean_scores(runner, drawn, pole, 4, SEED)


def mean_scores(runner: Runner, drawn: Sequence[Conversation], pole: str, times: int, seed: int) -> Array:
    """[prompts]: the mean judged score of several replies to each prompt."""
    chats = [c.messages for c in drawn]
    rounds = [runner.replies(chats, seed=seed + i) for i in range(times)]
    scores = [[judged(c, r).traits[pole] for c, r in zip(chats, x, strict=True)] for x in rounds]
    return np.asarray(scores, np.float32).mean(axis=0)


def _quality(
    trait: str,
    rows: Array,
    strong: Mapping[str, Array],
    neutral: Array,
    graded: Mapping[str, tuple[Array, Array]],
) -> Array:
    """[L]: layers 1 to L."""
    poles = world.poles_of(trait)
    others = np.concatenate([x for p, x in strong.items() if p not in poles])
    by_pole = [
        [
            _pole_quality(world.sign_of(p) * rows[layer], layer, strong[p], neutral, others, *graded[p])
            for layer in range(1, len(rows))
        ]
        for p in poles
    ]
    return np.array(by_pole, np.float32).mean(axis=0)


def _pole_quality(
    w: Array, layer: int, strong: Array, neutral: Array, others: Array, states: Array, scores: Array
) -> float:
    here = strong[:, layer] @ w
    r = float(np.corrcoef(states[:, layer] @ w, scores)[0, 1])
    return (area(here, neutral[:, layer] @ w) + area(here, others[:, layer] @ w) + r) / 3


def _areas(rows: Array, strong: Array, neutral: Array) -> tuple[float, ...]:
    return tuple(round(area(strong[:, i] @ rows[i], neutral[:, i] @ rows[i]), 4) for i in range(1, len(rows)))


def choose_steering(runner: Runner, contrasts: Mapping[str, Contrast]) -> tuple[str, Directions]:
    """Raw or orthogonalised differences: which cap lowers a strong trait at less cost in coherence."""
    raw = {name: one.difference for name, one in contrasts.items()}
    kinds = {"raw": raw, "orthogonalised": {t: probes.orthogonalised(t, raw) for t in raw}}
    costs = {kind: _capped_cost(runner, rows) for kind, rows in kinds.items()}
    print("validation, trait score plus lost coherence under cap:", costs)
    kind = min(costs, key=lambda k: costs[k])
    return kind, kinds[kind]


def _capped_cost(runner: Runner, rows: Directions) -> float:
    tokens, costs = benign_tokens(runner), []
    for trait, steering in rows.items():
        table = {layer: _benign(tokens, steering, layer) for layer in range(1, len(steering))}
        limits = {layer: one.percentile(CAP.percentile or 0) for layer, one in table.items()}
        cap = Steering(
            policy="validation",
            trait=trait,
            operator="cap",
            layers=tuple(limits),
            directions=tuple(unit(steering[layer]) for layer in limits),
            limits=tuple(limits.values()),
        )
        drawn = material.at_level(SEED + 1, 64, "validation", trait, "strong")
        replies = runner.replies([c.messages for c in drawn], seed=SEED, steering=[cap])
        verdicts = [judged(c.messages, r) for c, r in zip(drawn, replies, strict=True)]
        costs += [v.traits[trait] + 100 - v.coherence for v in verdicts]
    return round(float(np.mean(costs)), 2)


def build_calibration(runner: Runner, vectors: TraitVectors) -> Calibration:
    """Benign statistics of every probe and steering direction."""
    drawn = material.benign(SEED + 1, CALIBRATED, "train", "validation")
    states, tokens = runner.states_of(drawn), benign_tokens(runner)
    layers = range(1, runner.layers + 1)
    return Calibration(
        fingerprint=vectors.provenance.fingerprint,
        vectors_sha256=vectors.sha256,
        population=material.POPULATION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        probes={
            t: {i: Benign.of(states[:, i] @ v.probe[i] + v.offset[i]) for i in layers}
            for t, v in vectors.items()
        },
        steering={t: {i: _benign(tokens, v.steering, i) for i in layers} for t, v in vectors.items()},
    )


def benign_tokens(runner: Runner) -> Array:
    """[tokens, L + 1, d_model]: states of prompt and reply tokens of benign conversations."""
    drawn = material.benign(SEED + 2, PROMPTS, "train", "validation")
    chats = [c.messages for c in drawn]
    replies = runner.replies(chats, seed=SEED)
    states = np.concatenate(runner.token_states(chats, replies, prompt_too=True))
    return states[np.random.default_rng(SEED).choice(len(states), CAPPED_TOKENS, replace=False)]


def _benign(tokens: Array, steering: Array, layer: int) -> Benign:
    return Benign.of(tokens[:, layer] @ unit(steering[layer]))
