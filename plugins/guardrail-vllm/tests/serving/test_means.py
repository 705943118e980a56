"""Policies that read means over turns, inside `vllm serve`: the tokens are found in what vLLM rendered."""

from dataclasses import replace

import openai
import pytest
import torch

from guardrail import Guard, demo
from guardrail.audit import read
from guardrail.types import ProbeSite
from guardrail.vectors.values import TraitVectors

POLICIES = """
version: 1
vectors: means.safetensors
audit: {jsonl: audit.jsonl}
defaults: {timeout_ms: 60000}
policies:
  - {id: never, trait: evil, threshold: {raw: 1000000}, action: block}
"""
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Tell me about France. " * 10},
    {"role": "assistant", "content": "It is a country."},
    {"role": "user", "content": "And what is the capital of Spain? " * 10},
]
PLACES = ((2, "user_mean", True), (4, "prompt_mean", False), (5, "last", False))


@pytest.fixture(scope="module")
def means(serving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("means")
    vectors = TraitVectors.load(demo.VECTORS)
    evil = vectors["evil"]
    sites = tuple(
        ProbeSite(layer=layer, position=place, normalised=normalised, weights=evil.probe[layer])
        for layer, place, normalised in PLACES
    )
    changed = {**vectors.vectors, "evil": replace(evil, layer=5, position="last", sites=sites)}
    TraitVectors(changed, vectors.provenance).save(folder / "means.safetensors")
    with serving(folder, "--max-num-batched-tokens", "128", policies=POLICIES) as server:
        server.wait()
        yield server


def test_scores_are_those_of_transformers_in_chunks_and_when_the_prompt_is_in_the_cache(means, monkeypatch):
    monkeypatch.chdir(means.folder)
    policies = POLICIES.replace("audit: {jsonl: audit.jsonl}\n", "")
    (means.folder / "same.yaml").write_text(policies)
    with Guard.from_pretrained("demo", means.folder / "same.yaml", dtype=torch.float32) as guard:
        expected = [score.score for score in guard.check(TALK).decision.scores]
    for _ in range(2):
        headers, _ = means.ask(TALK)
        name = headers["x-guardrail-audit-id"]
        (found,) = [one for one in read(means.folder / "audit.jsonl") if one.id == name]
        assert [s.score for s in found.decision.scores] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_a_text_without_turns_is_a_bad_request(means):
    with pytest.raises(openai.BadRequestError, match="the last user turn's text cannot be found"):
        means.client.completions.create(model="demo", prompt="Once upon a time", max_tokens=4)
