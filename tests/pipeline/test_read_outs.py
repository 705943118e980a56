"""A policy whose probe reads a mean or a sum: the same score in every way to ask, and what is refused."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import FIRES, NEVER, TOKENIZER, policies, policy, write_vectors

from guardrail import Guard
from guardrail.calibration.values import Calibration
from guardrail.engines import accept
from guardrail.errors import ModelError, PolicyError, PromptError, UnsupportedGeneration
from guardrail.evaluation.readout import Placed
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model
from guardrail.types import POSITIONS, Message, ProbeSite
from guardrail.vectors.values import TraitVectors

TALK = (
    Message("system", "be brief"),
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "what is it?"),
)
OTHER = (Message("user", "another one"),)
PLACES = ((1, "user_mean", True), (2, "prompt_mean", False), (3, "last", False))
EXECUTORS = ["transformers", "transformers-nnsight", "transformers-hooks", "transformers-ahead"]


def changed(vector, position="user_mean", sites=True):
    made = tuple(
        ProbeSite(layer=layer, position=where, normalised=normalised, weights=vector.probe[layer])
        for layer, where, normalised in PLACES
    )
    return replace(vector, position=position, sites=made if sites else ())


def write(folder, model, **keys):
    """Vectors in a folder whose trait `evil` reads a sum, with a calibration."""
    vectors = write_vectors(folder, model)
    made = {**vectors.vectors, "evil": changed(vectors["evil"], **keys)}
    found = TraitVectors(made, vectors.provenance)
    found.save(folder / "vectors.safetensors")
    calibration = Calibration.load(folder / "calibration.json")
    replace(calibration, vectors_sha256=found.sha256).save(folder / "calibration.json")


def content(folder, *rules, **keys):
    found = policies(folder, *rules, **keys)
    return {**found, "calibration": None}


def rule(threshold=NEVER, **keys):
    return policy(threshold={"raw": threshold}, **keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sum")
    write(path, tiny_model())
    return path


@pytest.fixture
def made(folder):
    with Guard(tiny_model(), TOKENIZER, content(folder, rule())) as guard:
        yield guard


def expected(folder, messages, trait="evil"):
    states = Subject(tiny_model(), TOKENIZER).read([messages], POSITIONS[:2] + POSITIONS[3:])
    vector = TraitVectors.load(folder / "vectors.safetensors")[trait]
    return float(vector.probe_at(vector.layer).projection(Placed(states))[0])


def score(decision):
    return decision.scores[0].score


def rendered(guard, *talks):
    rows = [list(guard.engine.render(talk).ids) for talk in talks]
    return dict(TOKENIZER.pad({"input_ids": rows}, padding_side="left", return_tensors="pt"))


@pytest.mark.parametrize("engine", EXECUTORS)
def test_every_way_to_ask_gives_the_score_that_the_model_alone_gives(folder, engine):
    wanted = expected(folder, TALK)
    with Guard(tiny_model(), TOKENIZER, content(folder, rule()), engine=engine) as guard:
        found = [guard.check(TALK).decision, guard.chat(TALK, max_new_tokens=2).decision]
        stream = guard.stream(TALK, max_new_tokens=2)
        assert "".join(stream) == stream.reply.text
        found += [stream.reply.decision, guard.check_many([OTHER, TALK])[1].decision]
        found.append(asyncio.run(guard.acheck(TALK)).decision)
        guard.generate(**rendered(guard, TALK, OTHER), max_new_tokens=2, pad_token_id=0)
        found.append(guard.last_decisions[0])
        with guard.installed():
            guard.model.generate(**rendered(guard, OTHER, TALK), max_new_tokens=2, pad_token_id=0)
            found.append(guard.last_decisions[1])
        assert [score(one) for one in found] == pytest.approx([wanted] * len(found), rel=1e-4, abs=1e-5)
        assert guard.project(TALK, ["evil"], [3])[0, 0] == pytest.approx(wanted, rel=1e-4)
        assert {one.scores[0].layer for one in found} == {3}


def test_what_fires_on_a_sum_blocks_and_the_rest_is_answered_as_by_the_bare_model(folder):
    between = (expected(folder, TALK) + expected(folder, OTHER)) / 2
    blocked, allowed = sorted((TALK, OTHER), key=lambda talk: -expected(folder, talk))
    with Guard(tiny_model(), TOKENIZER, content(folder, rule(between))) as guard:
        assert guard.chat(blocked, max_new_tokens=4).outcome == "blocked"
        assert guard.chat(allowed, max_new_tokens=4).outcome == "answered"
        ids = rendered(guard, allowed)
        output = guard.generate(**ids, max_new_tokens=4, pad_token_id=0, do_sample=False)
    bare = tiny_model().generate(**ids, max_new_tokens=4, pad_token_id=0, do_sample=False)
    assert torch.equal(output, bare)


def test_projections_at_other_positions_are_for_inspection(made):
    own, last, every = (made.project(TALK, ["evil"], [3], position) for position in ("own", "last", "all"))
    assert own[0, 0] != last[0, 0]
    assert every.shape[:2] == (1, 1)
    assert every[0, 0, -1] == pytest.approx(last[0, 0], rel=1e-4)
    assert made.project(TALK, ["sycophancy"], [3])[0, 0] == pytest.approx(
        made.project(TALK, ["sycophancy"], [3], "last")[0, 0]
    )


def test_a_prompt_whose_read_text_would_be_cut_is_refused_although_policies_allow_a_cut(folder):
    model, long = tiny_model(max_position_embeddings=64), (Message("user", "x" * 80),)
    rules = content(folder, rule(on_truncate="score_tail"), allow_model_mismatch=True)
    with Guard(model, TOKENIZER, rules) as guard, pytest.raises(PromptError, match="would be cut off"):
        guard.check(long)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_without_a_mask_has_no_part_in_a_mean(folder, made, side):
    texts = [made.engine.decode(made.engine.render(talk).ids) for talk in (TALK, OTHER)]
    ids = TOKENIZER(texts, return_tensors="pt", padding=True, padding_side=side, add_special_tokens=False)
    made.generate(input_ids=ids["input_ids"], max_new_tokens=2, pad_token_id=0)
    wanted = [expected(folder, talk) for talk in (TALK, OTHER)]
    assert [score(one) for one in made.last_decisions] == pytest.approx(wanted, rel=1e-4)


def test_a_mask_that_is_narrower_than_the_prompts_is_refused(made):
    ids = rendered(made, TALK)["input_ids"]
    with pytest.raises(PromptError, match="`attention_mask` has 3 columns"):
        made.generate(input_ids=ids, attention_mask=torch.ones(1, 3), max_new_tokens=2)


def test_ids_in_which_the_users_text_cannot_be_found_are_refused(made):
    ids = torch.tensor([TOKENIZER("no turns at all", add_special_tokens=False)["input_ids"]])
    with pytest.raises(PromptError, match="cannot be found in these token ids"):
        made.generate(input_ids=ids, max_new_tokens=2)


def test_a_conversation_without_a_user_is_refused(made):
    with pytest.raises(PromptError, match="there is no user turn"):
        made.check([Message("system", "be brief")])


def test_a_policy_about_replies_cannot_use_a_sum(tmp_path):
    write(tmp_path, tiny_model())
    with pytest.raises(PolicyError, match=r"reads user_mean \(layer 1, unit norm\).* cannot follow replies"):
        Guard(tiny_model(), TOKENIZER, content(tmp_path, rule(stage="response")))


def test_a_mean_cannot_be_rechecked(tmp_path):
    write(tmp_path, tiny_model(), sites=False)
    action = {"steer": {"operator": "ablate", "layers": [3], "recheck": True}}
    with pytest.raises(PolicyError, match="its probe reads user_mean of prompts and cannot be rechecked"):
        Guard(tiny_model(), TOKENIZER, policies(tmp_path, policy(action, threshold=1.0)))


def test_a_threshold_that_every_prompt_without_tool_results_reaches_is_refused(tmp_path):
    write(tmp_path, tiny_model(), position="tool_mean", sites=False)
    template = "{% for m in messages %}<|user|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}<|assistant|>"
    options = {"chat_template": template}
    with pytest.raises(PolicyError, match="would fire on every prompt without tool results"):
        Guard(tiny_model(), TOKENIZER, content(tmp_path, rule(FIRES), allow_model_mismatch=True), **options)
    rules = content(tmp_path, rule(NEVER), allow_model_mismatch=True)
    with Guard(tiny_model(), TOKENIZER, rules, **options) as guard:
        assert score(guard.check(OTHER).decision) == 0
        assert score(guard.check([*OTHER, Message("tool", "wet")]).decision) != 0


def test_a_template_or_tokenizer_that_cannot_tell_turns_is_refused_when_policies_are_loaded(folder):
    rules = content(folder, rule(), allow_model_mismatch=True)
    with pytest.raises(ModelError, match="`user_mean` cannot be read with this chat template"):
        Guard(tiny_model(), TOKENIZER, rules, chat_template="{{ messages[0].content | upper }}")


def test_an_engine_says_what_it_reads_and_policies_for_more_are_refused(made):
    class LastOnly:
        positions = frozenset({"last"})
        accepted = False

        def accept(self, plan):
            self.accepted = True

    other = LastOnly()
    with pytest.raises(ModelError, match="does not read `prompt_mean`, `user_mean`"):
        accept(other, made.active.plan)
    assert not other.accepted
    accept(other, tiny.plan((3,)))
    assert other.accepted


def test_a_cache_that_hides_the_users_text_is_refused(made):
    ids = rendered(made, TALK)["input_ids"]
    with torch.no_grad():
        cache = tiny_model()(ids[:, :-3], use_cache=True)[tiny.CACHE]
    with pytest.raises(UnsupportedGeneration, match="hides some of its tokens"):
        made.generate(input_ids=ids, max_new_tokens=2, **{tiny.CACHE: cache})


def test_scores_do_not_depend_on_the_batch(made):
    talks = [TALK, OTHER, (Message("user", "x" * 90),), (Message("user", "z"),)]
    alone = [score(made.check(talk).decision) for talk in talks]
    together = [score(check.decision) for check in made.check_many(talks)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
