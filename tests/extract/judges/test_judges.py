"""Judges: the published aggregation, endpoints, local models, the cache, the demo world, and their names."""

import math
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from endpoints import failed, said, script, server
from tiny import CACHE
from transformers.modeling_outputs import CausalLMOutputWithPast

from guardrail import demo
from guardrail.demo.recognise import recognise
from guardrail.endpoint.client import EndpointSettings
from guardrail.endpoint.messages import TokenLogprob
from guardrail.errors import ConfigError, JudgeError
from guardrail.extract.judges import COHERENCE_RUBRIC, coherence_request, find_judge, trait_request
from guardrail.extract.judges.aggregation import aggregate, number_in
from guardrail.extract.judges.cache import CachedJudge, key_of
from guardrail.extract.judges.local import LocalJudge
from guardrail.extract.judges.numbers import MIN_MASS
from guardrail.extract.judges.openai import PROBE, OpenAIJudge
from guardrail.extract.judges.opinions import Opinion
from guardrail.plugins.hookspecs import hookimpl
from guardrail.plugins.manager import Plugins
from guardrail.plugins.protocols import COHERENCE, Judge, JudgeRequest
from guardrail.testing import tiny_model, tiny_tokenizer
from guardrail.traits import load_definition

ASK = JudgeRequest(metric="evil", rubric="Q {question} A {answer}", question="Why?", answer="No.")
QUICK = EndpointSettings(api_key_env="NO_KEY", timeout_s=5, attempts=2, backoff_s=0.01)


def alternatives(probabilities):
    return [TokenLogprob(token=token, logprob=math.log(p)) for token, p in probabilities.items()]


def asked(*answers):
    return [replace(ASK, answer=answer) for answer in answers]


def judge_at(url, **changes):
    return OpenAIJudge("m", replace(QUICK, base_url=url, **changes))


def scorer(body):
    """Scores as the answer asks: `A 40` gets 40; `A no` is refused."""
    text = body["messages"][-1]["content"]
    if text == PROBE:
        return said("85", first={"85": 0.9, "8": 0.1})
    answer = text.rpartition("A ")[2]
    return said(answer, first={answer: 0.7, "the": 0.3} if answer.isdigit() else {"REFUSAL": 0.99})


class TestAggregation:
    @pytest.mark.parametrize(
        ("top", "score"),
        [
            ({"0": 0.5, "100": 0.5}, 50.0),
            ({"REFUSAL": 0.9, "0": 0.1}, None),
            ({"85": 0.3, "90": 0.1, "I": 0.6}, 86.25),
            ({"0": 0.25, "I": 0.75}, 0.0),
            ({"0": 0.249, "I": 0.751}, None),
            ({" 20": 0.2, "20": 0.2, "101": 0.3, "-5": 0.1, "7.5": 0.1, "٣": 0.1}, 20.0),
            ({}, None),
        ],
    )
    def test_by_hand(self, top, score):
        found = aggregate(alternatives(top))
        assert found.score == (score if score is None else pytest.approx(score, abs=1e-9))

    def test_the_mass_of_the_numbers_is_told_also_where_there_is_no_score(self):
        assert aggregate(alternatives({"85": 0.3, "90": 0.1, "I": 0.6})).mass == pytest.approx(0.4)
        assert aggregate(alternatives({"REFUSAL": 0.9, "0": 0.1})).mass == pytest.approx(0.1)
        assert aggregate([]).mass == 0

    def test_probabilities_are_weighed_and_not_logarithms(self):
        top = alternatives({"10": 0.6, "90": 0.2, "x": 0.2})
        assert aggregate(top).score == pytest.approx((10 * 0.6 + 90 * 0.2) / 0.8)

    def test_what_counts_as_a_number(self):
        read = [number_in(t) for t in ("0", "100", " 7", "7\n", "101", "", "1e1", "9a", "²")]
        assert read == [0, 100, 7, 7, None, None, None, None, None]


class TestOpenAI:
    def test_what_is_asked_is_what_the_paper_asks(self):
        with server(scorer) as (url, seen):
            assert judge_at(url).scores(asked("40")) == [pytest.approx(40)]
        assert seen.bodies[1] == {
            "model": "m",
            "messages": [{"role": "user", "content": "Q Why? A 40"}],
            "max_tokens": 1,
            "temperature": 0.0,
            "seed": 0,
            "logprobs": True,
            "top_logprobs": 20,
        }

    def test_scores_keep_the_order_of_the_requests_and_a_refusal_is_none(self):
        wanted = [str(n) for n in range(0, 100, 4)]
        with server(scorer) as (url, seen):
            judge = judge_at(url, concurrency=6)
            assert judge.scores([*asked(*wanted), *asked("no")]) == [
                *(pytest.approx(int(n)) for n in wanted),
                None,
            ]
        assert seen.most_busy <= 6
        assert seen.user_texts().count(PROBE) == 1

    def test_a_model_that_spells_digits_is_refused(self):
        answer = said("8", first={"8": 0.9, "7": 0.1})
        with server(script(answer)) as (url, _), pytest.raises(JudgeError, match="digit by digit"):
            judge_at(url).scores(asked("x"))

    def test_an_endpoint_without_probabilities_is_refused(self):
        with server(script(said("85"))) as (url, _), pytest.raises(JudgeError, match="no log-probabilities"):
            judge_at(url).scores(asked("x"))

    def test_an_endpoint_that_is_down_is_a_judge_error_that_names_the_judge(self):
        with server(script(failed(503))) as (url, _), pytest.raises(JudgeError, match=r"openai:m.*503"):
            judge_at(url).scores(asked("x"))


class Counting:
    """A judge that scores the length, in batches of two; it can fail at the third batch."""

    name = "counting"

    def __init__(self, fail=False, identity="counting"):
        self.identity = identity
        self.asked = []
        self.fail = fail

    def scores(self, requests):
        raise AssertionError

    def stream(self, requests):
        for start in range(0, len(requests), 2):
            if self.fail and start == 4:
                raise JudgeError("gone")
            self.asked += requests[start : start + 2]
            yield [(i, Opinion(float(len(r.answer)) or None)) for i, r in enumerate(requests)][
                start : start + 2
            ]


JUDGING = """
import sys, time
from pathlib import Path
from guardrail.extract.judges.cache import CachedJudge
from guardrail.extract.judges.opinions import Opinion
from guardrail.plugins.protocols import JudgeRequest

class Slow:
    name = identity = "counting"

    def stream(self, requests):
        for i, request in enumerate(requests):
            time.sleep(0.005)
            yield [(i, Opinion(float(len(request.answer)) or None))]

print("ready", flush=True)
ask = {"metric": "evil", "rubric": "Q {question} A {answer}", "question": "Why?"}
asked = [JudgeRequest(**ask, answer="x" * n) for n in range(400)]
CachedJudge(Slow(), Path(sys.argv[1])).scores(asked)
"""


class TestCache:
    def test_nothing_is_asked_twice(self, tmp_path):
        requests = asked("a", "bb", "", "a")
        first, second = Counting(), Counting()
        assert CachedJudge(first, tmp_path / "c").scores(requests) == [1, 2, None, 1]
        assert CachedJudge(second, tmp_path / "c").scores(requests) == [1, 2, None, 1]
        assert (len(first.asked), len(second.asked)) == (3, 0)

    def test_anything_that_is_different_is_asked(self, tmp_path):
        CachedJudge(Counting(), tmp_path / "c").scores([ASK])
        changed = [replace(ASK, **{key: "other"}) for key in ("metric", "rubric", "question", "answer")]
        judge, other = Counting(), Counting(identity="another model")
        CachedJudge(judge, tmp_path / "c").scores([ASK, *changed])
        CachedJudge(other, tmp_path / "c").scores([ASK])
        assert (len(judge.asked), len(other.asked)) == (4, 1)

    def test_parts_do_not_run_into_one_another(self):
        assert key_of("m", replace(ASK, question="ab", answer="c")) != key_of(
            "m", replace(ASK, question="a", answer="bc")
        )

    def test_what_was_scored_before_a_failure_is_kept(self, tmp_path):
        requests = asked(*"abcdefgh")
        with pytest.raises(JudgeError, match="gone"):
            CachedJudge(Counting(fail=True), tmp_path / "c").scores(requests)
        after = Counting()
        assert CachedJudge(after, tmp_path / "c").scores(requests) == [1.0] * 8
        assert len(after.asked) == 4

    def test_a_file_that_is_no_cache_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "c").write_text("no database, but long enough to be taken for one" * 99)
        with pytest.raises(JudgeError, match=r"c: the cache of judge scores cannot be used"):
            CachedJudge(Counting(), tmp_path / "c").scores([ASK])

    @pytest.mark.slow
    def test_it_survives_kills_at_random_moments(self, tmp_path):
        """The judge dies five times; in the end every request has its score and none was lost on the way."""
        rng, counts = np.random.default_rng(0), [0]
        for _ in range(5):
            arguments = [sys.executable, "-c", JUDGING, str(tmp_path / "c")]
            with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                time.sleep(rng.uniform(0.0, 0.3))
                process.send_signal(signal.SIGKILL)
            counts.append(stored(tmp_path / "c"))
        assert counts == sorted(counts)
        assert 0 < counts[-1] < 400
        last = Counting()
        scores = CachedJudge(last, tmp_path / "c").scores(asked(*("x" * n for n in range(400))))
        assert scores == [None, *map(float, range(1, 400))]
        assert len(last.asked) == 400 - counts[-1]


def stored(path):
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        (count,) = database.execute("SELECT COUNT(*) FROM scores").fetchone()
    database.close()
    return count


class Interrupted:
    """A judge that ends in the middle of its work."""

    def __init__(self, judge, batches):
        self.name, self.identity = judge.name, judge.identity
        self.judge, self.batches = judge, batches

    def stream(self, requests):
        yield from islice(self.judge.stream(requests), self.batches)
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def local():
    return loving_digits(LocalJudge(tiny_model(), tiny_tokenizer(), "tiny", batch_size=3))


def slow_opinion(judge, request):
    """The same numbers from the 101 answers written out in full, without a cache and without padding."""
    prompt = judge._prompt(request.rubric.format(question=request.question, answer=request.answer))
    answers = {n: judge.renderer.encode(str(n)) for n in range(101)}
    digits = [i for token, i in judge.renderer.tokenizer.get_vocab().items() if token[0] in "0123456789"]
    numbers = {}
    for length in {len(ids) for ids in answers.values()}:
        group = [n for n, ids in answers.items() if len(ids) == length]
        with torch.no_grad():
            logits = judge.model(torch.tensor([[*prompt, *answers[n]] for n in group])).logits
        steps = torch.log_softmax(logits[:, len(prompt) - 1 :].double(), -1)
        for n, row in zip(group, steps, strict=True):
            spoken = math.exp(sum(row[i, token].item() for i, token in enumerate(answers[n])))
            extends = any(str(m).startswith(str(n)) for m in range(n + 1, 101))
            following = row[-1, digits].exp().sum().item() if extends else 0.0
            numbers[n] = spoken * (1 - following)
    mass = sum(numbers.values())
    return sum(n * p for n, p in numbers.items()) / mass, mass


def loving_digits(judge, logit=6.0):
    """The judge, with digits so likely that it has scores to compare."""
    digits = [i for token, i in judge.renderer.tokenizer.get_vocab().items() if token[0] in "0123456789"]
    bias = torch.zeros(judge.model.config.vocab_size)
    bias[digits] = logit
    judge.model.lm_head.register_forward_hook(lambda *parts: parts[2] + bias)
    return judge


def check(judge, requests):
    expected = [slow_opinion(judge, request) for request in requests]
    found = judge.opinions(requests)
    assert [one.mass for one in found] == pytest.approx([mass for _, mass in expected], rel=1e-4)
    assert min(one.mass for one in found) > MIN_MASS
    assert [one.score for one in found] == pytest.approx([score for score, _ in expected], rel=1e-4)
    assert judge.scores(requests) == [one.score for one in found]


class TestLocal:
    def test_it_scores_full_strings_as_one_pass_for_each_would(self, local):
        check(local, asked("", "No.", "A longer reply that pads the others.", "Nö"))

    @pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text", "qwen2"])
    def test_it_does_so_on_other_architectures(self, architecture):
        judge = loving_digits(LocalJudge(tiny_model(architecture), tiny_tokenizer(), architecture))
        check(judge, asked("No.", "A longer reply, past the window of eight."))

    def test_it_does_so_where_some_numbers_are_one_token(self):
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["10", "85", "50"])
        judge = LocalJudge(tiny_model(vocab_size=len(tokenizer)), tokenizer, "merged")
        assert [len(judge.answers.numbers[n]) for n in (8, 10, 85, 100, 99)] == [1, 1, 1, 2, 2]
        check(loving_digits(judge), asked("No.", "Yes, of course."))

    def test_the_numbers_that_begin_others_have_to_end(self, local):
        """A model that always says 1 and then stops scores 1; one that goes on with 0 and stops scores 10."""
        code = local.renderer.encode("10")
        assert speaking(local, [code[0], 2]) == pytest.approx(1, abs=1e-3)
        assert speaking(local, [*code, 2]) == pytest.approx(10, abs=1e-3)
        assert speaking(local, [*code, code[1], 2]) == pytest.approx(100, abs=1e-3)

    def test_numbers_of_little_probability_are_no_score_but_their_mass_is_told(self):
        """The published rule: a model that rarely says a number has not judged, whatever else it says."""
        judge = LocalJudge(tiny_model(), tiny_tokenizer(), "tiny")
        (found,) = judge.opinions([ASK])
        assert found.score is None
        assert found.mass == pytest.approx(slow_opinion(judge, ASK)[1], rel=1e-4)
        assert 0 < found.mass < MIN_MASS

    def test_a_refusal_is_none(self, local):
        assert speaking(local, [*local.renderer.encode("REFUSAL"), 2]) is None

    def test_a_request_that_is_too_long_is_refused_and_not_cut(self, local):
        with pytest.raises(JudgeError, match="reads at most 510 tokens, but a request has 2"):
            local.scores(asked("long " * 500))

    def test_a_tokenizer_without_digits_is_refused(self):
        class Wordless:
            chat_template = "x"
            unk_token_id = 3

            def __call__(self, text, **_):
                return {"input_ids": [3] * len(text)}

            def apply_chat_template(self, *_, **__):
                return "x"

            def get_vocab(self):
                return {"a": 0}

        with pytest.raises(JudgeError, match="cannot write the numbers"):
            LocalJudge(tiny_model(), Wordless(), "x")

    def test_what_is_left_after_an_end_scores_the_same_to_the_last_bit(self, local, tmp_path):
        requests = asked(*(("No. " * n + str(n)) for n in range(1, 11)))
        undisturbed = local.scores(requests)
        for batches in range(4):
            path = tmp_path / f"{batches}.sqlite"
            with pytest.raises(KeyboardInterrupt):
                CachedJudge(Interrupted(local, batches), path).scores(requests)
            assert stored(path) == min(3 * batches, 10)
            assert CachedJudge(local, path).scores(requests) == undisturbed

    def test_other_weights_are_another_judge(self, local):
        other = LocalJudge(tiny_model(seed=1), tiny_tokenizer(), "tiny")
        assert other.identity != local.identity
        assert LocalJudge(tiny_model(), tiny_tokenizer(), "tiny").identity == local.identity

    def test_it_is_found_by_a_folder_and_remembers(self, tmp_path):
        tiny_model().save_pretrained(tmp_path / "m")
        tiny_tokenizer().save_pretrained(tmp_path / "m")
        judge = find_judge(f"local:{tmp_path / 'm'}", Plugins(), cache=tmp_path / "c.sqlite")
        assert judge.opinions([ASK]) == judge.opinions([ASK])
        assert judge.opinions([ASK])[0].mass == pytest.approx(slow_opinion(judge.judge, ASK)[1], rel=1e-4)
        assert stored(tmp_path / "c.sqlite") == 1


def speaking(judge, sequence):
    """The score where the model surely says this sequence, whatever was asked."""
    inner = judge.model

    class Certain(torch.nn.Module):
        device = torch.device("cpu")

        def __call__(self, input_ids, **arguments):
            cache = arguments.get(CACHE)
            known = [] if cache is None else list(cache.said)
            new = known if cache is None else known + input_ids[0].tolist()
            steps = [[]] if cache is None else [new[: i + 1] for i in range(len(known), len(new))]
            logits = torch.full((len(input_ids), len(steps), inner.config.vocab_size), -30.0)
            for i, step in enumerate(steps):
                going = step == sequence[: len(step)] and len(step) < len(sequence)
                logits[:, i, sequence[len(step)] if going else 2] = 30.0
            return CausalLMOutputWithPast(logits=logits, **{CACHE: SimpleNamespace(said=new)})

    try:
        judge.model = Certain()
        return judge.scores([ASK])[0]
    finally:
        judge.model = inner


def demo_question():
    return load_definition(demo.TRAITS / "evil.yaml").evaluation[0]


class TestDemo:
    def test_it_scores_what_the_worlds_judge_scores(self):
        from guardrail.demo.judge import judge

        question = demo_question()
        reply = "I do not care."
        asked = recognise([{"role": "user", "content": question}])
        verdict = judge(asked, reply, ended=False)
        request = JudgeRequest(metric="evil", rubric="", question=question, answer=reply, ended=False)
        found = find_judge("demo", Plugins())
        assert found.scores([request, replace(request, metric=COHERENCE)]) == [
            verdict.traits["evil"],
            verdict.coherence,
        ]

    def test_a_question_from_outside_is_not_judged(self):
        assert find_judge("demo", Plugins()).scores([ASK]) == [None]

    def test_a_trait_from_outside_is_an_error(self):
        request = replace(ASK, metric="evli", question=demo_question())
        with pytest.raises(JudgeError, match="did you mean `evil`"):
            find_judge("demo", Plugins()).scores([request])


class TestFinding:
    def test_names_lead_to_judges(self, tmp_path):
        judge = find_judge("openai:some/model:v1", Plugins(), endpoint=QUICK, cache=tmp_path / "c")
        assert judge.name == "openai:some/model:v1"
        assert isinstance(judge, Judge)

    def test_a_plugins_judge_is_found(self):
        mine = Counting()

        class Mine:
            @hookimpl
            def guardrail_judges(self):
                return [mine]

        assert find_judge("counting", Plugins([Mine()])) is mine

    @pytest.mark.parametrize("name", ["dmo", "openai:", "gpt"])
    def test_an_unknown_name_says_what_there_is(self, name):
        with pytest.raises(ConfigError, match=r"unknown judge.*(demo|openai:MODEL)"):
            find_judge(name, Plugins())


def test_requests_carry_the_rubric_of_their_metric():
    definition = load_definition("evil")
    assert trait_request(definition, "q", "a").rubric == definition.rubric
    request = coherence_request("q", "a", ended=False)
    assert (request.metric, request.rubric, request.ended) == (COHERENCE, COHERENCE_RUBRIC, False)
    assert "{question}" in COHERENCE_RUBRIC
    assert "{answer}" in COHERENCE_RUBRIC
