"""A run on a tiny model: rows, alternatives, one model instead of two, and memory that is not there."""

import mmap
from dataclasses import replace

import pytest
import torch

from guardrail.bench import against, memory, plans, settings
from guardrail.bench.alternatives import ALTERNATIVES
from guardrail.bench.cases import endless, greedy, inputs
from guardrail.bench.clocks import wall_clock
from guardrail.bench.couple import Couple
from guardrail.bench.memory import GIB, Sizes, sizes
from guardrail.bench.pairs import Recorded
from guardrail.bench.results import Point
from guardrail.bench.run import Run
from guardrail.bench.second_model import Second
from guardrail.bench.settings import Settings, around, copies, too_large
from guardrail.bench.shapes import QWEN_7B, TINY_DECODER, TINY_ENCODER, random_model
from guardrail.engines.transformers.fingerprint import fingerprint
from guardrail.errors import ConfigError
from guardrail.testing import hand_made_vectors, tiny_model, tiny_tokenizer
from guardrail.testing.tiny import CHAT_TEMPLATE
from guardrail.vectors.values import TraitVectors

RULE = {"trait": "evil", "layer": 2, "threshold": {"raw": 0.0}}
POLICIES = [
    {"id": "no", "action": "block", **RULE},
    {"id": "ask", "action": {"escalate": {"to": "review-queue"}}, **RULE, "when": {"tags": ["x"]}},
    {"id": "less", "action": {"steer": {"operator": "add", "coefficient": -0.1}}, **RULE, "fires": "below"},
    {"id": "reply", "action": "block", "stage": "response", "monitor": {"every": 1}, **RULE},
]
SMALL = Sizes(weights=1, cache_per_token=1, activations_per_token=1, logits_per_row=1)


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.safetensors"
    of = fingerprint(tiny_model(), tiny_tokenizer(), CHAT_TEMPLATE, {})
    hand_made_vectors(fingerprint=of).save(path)
    return {"version": 1, "vectors": str(path), "policies": POLICIES}


@pytest.fixture(params=["two models", "one model"])
def couple(request, policies):
    model = tiny_model()
    bare = model if request.param == "one model" else tiny_model()
    made = Couple(model, bare, tiny_tokenizer(), policies)
    yield made
    made.close()


def run_of(couple, policies, **changes):
    asked = Settings(
        model="tiny",
        policies=policies,
        **{"prompts": (8,), "new_tokens": 3, "pairs": 2, "warm_up": 1, **changes},
    )
    return Run(settings=asked, couple=couple, sizes=SMALL, clock=wall_clock(), say=lambda _: None)


@pytest.mark.slow
def test_every_case_and_every_point_of_a_sweep_has_its_rows(couple, policies):
    run = run_of(couple, policies, prompts=(8, 4), batches=(1, 2), policy_counts=(5,))
    rows = list(run.rows())
    assert all(row.ratio for row in rows), [row.note for row in rows]
    points = [Point(8, 1, 4), Point(4, 1, 4), Point(8, 2, 4)]
    metrics = ["allow: first token", "allow: per token", "allow: reply"]
    metrics += [name.replace("allow", "steer") for name in metrics] + ["block: against a bare prefill"]
    names = [f"{name} ({point})" for point in points for name in metrics]
    names += [f"made-up policies: {m} ({Point(8, 1, 5)})" for m in ("first token", "per token", "reply")]
    assert [row.name for row in rows] == names
    reply = rows[2]
    assert reply.tokens_per_s.bare == pytest.approx(3e3 / reply.bare_ms)
    assert reply.guarded_percentiles.p50 <= reply.guarded_percentiles.p99
    assert couple.model._forward_hooks == {}


def test_only_one_model_is_wrapped_for_guarded_and_unwrapped_for_bare_calls(policies):
    model = tiny_model()
    couple = Couple(model, model, tiny_tokenizer(), policies)
    run, seen = run_of(couple, policies), []

    def watched():
        seen.append("_prefill" in model.__dict__)

    run.recorded(watched, lambda: seen.append("_prefill" in model.__dict__))
    warm_up, pairs = [True, True, False], [True, True, False, False, True, True]
    # the call after wrapping is made twice; the pairs go guarded, bare, bare, guarded
    assert seen == [*warm_up, *pairs]
    couple.close()


def test_the_gate_judges_what_a_user_of_an_allowed_prompt_waits_for(couple, policies):
    run = run_of(couple, policies, gate=settings.Goal(value=1000.0))
    verdicts = {row.name.split(" (")[0]: row.verdict for row in run.rows()}
    judged = {name for name, verdict in verdicts.items() if verdict == "pass"}
    assert judged == {"allow: first token", "allow: per token"}


def test_forced_plans_keep_the_layers_and_change_the_verdict(policies):
    couple = Couple(tiny_model(), tiny_model(), tiny_tokenizer(), policies)
    plan = couple.guard.active.plan
    readings = [0.0] * len(plan.probes)
    for forced, action in (
        (plans.forced_allow(plan), "allow"),
        (plans.forced_block(plan), "block"),
        (plans.forced_steer(plan)[0], "steer"),
    ):
        assert forced.layers == plan.layers
        assert plans.PlanEvaluator(forced).decide(0, readings).action == action
        assert [rule.monitor for rule in forced.reply_rules] == [rule.monitor for rule in plan.reply_rules]
    assert plans.forced_steer(plan)[1] == ""
    only_block = plans.forced_block(plan)
    assert "made-up vector" in plans.forced_steer(only_block)[1]
    couple.close()


def test_policies_about_replies_are_followed_and_their_sweeps_need_no_prompt_policy(policies):
    only_replies = {**policies, "policies": POLICIES[3:]}
    couple = Couple(tiny_model(), tiny_model(), tiny_tokenizer(), only_replies)
    run = run_of(couple, only_replies, cases=("allow",), policy_counts=(2,))
    assert [row.point.policies for row in run.rows()] == [1, 1, 1, 2, 2, 2]
    with pytest.raises(ConfigError, match="no policy reads the prompt"):
        list(run_of(couple, only_replies, cases=("block",)).rows())
    couple.close()


def test_a_reply_that_differs_is_a_failure_and_no_time(policies):
    other = tiny_model(seed=1)
    couple = Couple(tiny_model(), other, tiny_tokenizer(), policies)
    row = next(run_of(couple, policies, cases=("allow",)).rows())
    assert (row.verdict, row.ratio, row.note) == ("fail", None, "the guarded reply differs from the bare one")
    couple.close()


# --- alternatives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_an_alternative_changes_no_token_and_leaves_no_trace(name):
    model, bare = endless(tiny_model()), endless(tiny_model())
    before = [dict(module.__dict__) for module in model.modules()]
    arguments = greedy(inputs(bare, 6, 2), 4)
    alternative = ALTERNATIVES[name](plans.allowing(32, (1, 3), 5))
    alternative.attach(model)
    assert torch.equal(alternative.generate(arguments), bare.generate(**arguments))
    alternative.detach()
    assert [set(module.__dict__) for module in model.modules()] == [set(old) for old in before]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_alternatives_are_measured_with_one_model_as_with_two(couple, policies, name):
    rows = list(run_of(couple, policies, cases=("allow",), against=(name,)).rows())[3:]
    assert [row.name.split(" (")[0] for row in rows] == [
        f"against {name}: {metric}" for metric in ("first token", "per token", "reply")
    ]


@pytest.mark.parametrize("shape", [TINY_ENCODER, TINY_DECODER])
def test_a_second_model_is_timed_alone_and_the_guard_is_a_share_of_it(couple, policies, shape, monkeypatch):
    second = Second(name="second", shape=shape)
    monkeypatch.setattr(against, "SECONDS", {"second": second})
    plan = plans.forced_allow(couple.guard.active.plan)
    rows = list(against.against(run_of(couple, policies), "second", Point(8, 1, 3), plan))
    assert [row.name.split(" (")[0] for row in rows] == [
        "against second: first token",
        "guard's added time / second's",
    ]
    assert rows[0].added_ms.low > 0


def test_a_prompt_beyond_the_encoders_window_is_judged_in_several(monkeypatch):
    seen = []
    model = random_model(TINY_ENCODER, "cpu", "float32")
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    monkeypatch.setattr("guardrail.bench.second_model.random_model", lambda *a: model)
    Second(name="s", shape=TINY_ENCODER).judging("cpu", "float32", tokens=1200, rows=2)()
    assert [tuple(shape) for shape in seen] == [(6, 512)]


def test_a_share_is_known_from_known_times():
    from guardrail.bench.clocks import Laps

    def all_(first):
        return (Laps(first, (first,)),) * 5

    recorded = Recorded(all_(10.5), all_(10.0), ((Laps(50.0),) * 5,))
    both, share = against.comparison("against x", Point(1, 1, 1), recorded, settings.Goal(value=0.02))
    assert (both.ratio.median, both.added_ms.median) == (6.0, 50.0)
    assert share.ratio.median == pytest.approx(0.01)
    assert share.verdict == "pass"


# --- memory and points --------------------------------------------------------------------------------


def asked(**changes):
    return Settings(model="m", policies={}, prompts=(100,), new_tokens=28, **changes)


def test_two_copies_are_made_where_they_fit_and_one_where_they_do_not(monkeypatch):
    wanted = Sizes(weights=4 * GIB, cache_per_token=0, activations_per_token=0, logits_per_row=0)
    for free, expected in ((10 * GIB, 2), (6 * GIB, 1)):
        monkeypatch.setattr(settings, "available", lambda device, free=free: free)
        assert copies(asked(), wanted) == expected
    monkeypatch.setattr(settings, "available", lambda device: 3 * GIB)
    with pytest.raises(ConfigError, match=r"not enough memory: m needs about 4.4 GiB.*3.0 GiB are free"):
        copies(asked(), wanted)


def test_a_prompt_that_the_model_does_not_take_is_refused():
    with pytest.raises(ConfigError, match="takes up to 64 tokens; the longest prompt and reply have 128"):
        copies(asked(), replace(SMALL, longest=64))


def test_a_point_that_is_too_large_is_skipped_and_listed(couple, policies, monkeypatch):
    monkeypatch.setattr(settings, "available", lambda device: 600)
    rows = list(run_of(couple, policies, prompts=(8, 100_000), cases=("block",)).rows())
    assert rows[0].ratio is not None
    assert (rows[1].verdict, rows[1].note[:9]) == ("not measured", "too large")
    assert too_large(asked(), SMALL, Point(8, 1, 1)) == ""


def test_the_memory_of_a_known_model_is_estimated_from_its_shape():
    found = sizes(QWEN_7B.config())
    assert found.weights == 4 * memory.parameters(QWEN_7B.config())
    assert 7.6e9 < memory.parameters(QWEN_7B.config()) < 7.7e9
    assert found.cache_per_token == 2 * 28 * 4 * 128 * 4


def test_the_peak_of_a_call_sees_what_it_holds():
    def hold():
        pages = mmap.mmap(-1, 64 * memory.MIB)  # fresh pages: an allocator might have some left
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
        pages.close()

    low, high = memory.peak_mib(lambda: None, "cpu"), memory.peak_mib(hold, "cpu")
    if low is None:
        pytest.skip("this system does not tell")
    assert 55 < high - low < 75


def test_one_factor_changes_at_a_time():
    base = Point(512, 1, 8)
    found = around(base, prompts=(512, 128), batches=(4,), policies=(1, 8))
    assert found == (base, Point(128, 1, 8), Point(512, 4, 8), Point(512, 1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "at least 1"),
        ({"batches": (0,)}, "at least 1"),
        ({"new_tokens": 1}, "at least 2 new tokens"),
        ({"cases": ("alow",)}, "unknown case `alow`"),
        ({"against": ("magic",)}, "unknown alternative `magic`"),
        ({"cases": ("block",), "gate": settings.Goal(value=1.0)}, "add `allow`"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Settings(model="m", policies={}, **changes)


@pytest.mark.parametrize("tokens", [40, 4])
def test_policies_that_read_the_users_text_are_measured_on_a_users_message(policies, tmp_path, tokens):
    vectors = TraitVectors.load(policies["vectors"])
    made = {"evil": replace(vectors["evil"], position="user_mean")}
    TraitVectors(made, vectors.provenance).save(tmp_path / "v.safetensors")
    content = {"version": 1, "vectors": str(tmp_path / "v.safetensors"), "policies": POLICIES[:1]}
    couple = Couple(tiny_model(), tiny_model(), tiny_tokenizer(), content)
    try:
        batch = couple.asked(tokens, 2)
        assert batch["input_ids"].shape == (2, max(tokens, 5))
        run = run_of(couple, content, prompts=(tokens,))
        rows = [row for case in ("allow", "block") for row in run.case(case, Point(tokens, 2, 1))]
        assert rows
        assert not any(row.note for row in rows)
    finally:
        couple.close()
