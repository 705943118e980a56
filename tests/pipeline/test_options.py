"""Options by our names and by those of the OpenAI API: understood, or refused in plain words."""

import pytest
from tiny import NEVER, batch, guard, policy

from guardrail.errors import PromptError
from guardrail.pipeline.options import REFUSED, sampling, split
from guardrail.types import Sampling


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Sampling()),
        ({"max_tokens": 5}, Sampling(max_new_tokens=5)),
        ({"max_completion_tokens": 5, "max_tokens": None}, Sampling(max_new_tokens=5)),
        ({"max_tokens": 5, "max_new_tokens": 5}, Sampling(max_new_tokens=5)),
        ({"stop": "x"}, Sampling(stop=("x",))),
        ({"stop": ["x", "y"]}, Sampling(stop=("x", "y"))),
        ({"stop_strings": ["x"]}, Sampling(stop=("x",))),
        ({"stop": None, "seed": None, "temperature": 0, "top_p": 1}, Sampling(temperature=0, top_p=1)),
        ({"n": 1, "logprobs": False, "stream": False, "presence_penalty": 0.0}, Sampling()),
        ({"n": 2, "logprobs": True}, Sampling(n=2, logprobs=0)),
        ({"logprobs": True, "top_logprobs": 5}, Sampling(logprobs=5)),
        ({"logit_bias": {"7": -100, 8: 1.5}}, Sampling(logit_bias=((7, -100), (8, 1.5)))),
        (
            {"presence_penalty": 1, "frequency_penalty": -2.0},
            Sampling(presence_penalty=1, frequency_penalty=-2),
        ),
        ({"tool_choice": "auto", "response_format": {"type": "text"}, "logit_bias": {}}, Sampling()),
    ],
)
def test_options_are_understood(options, expected):
    assert sampling(options) == expected


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_understood_is_refused_with_what_to_use(name):
    with pytest.raises(PromptError, match=f"`{name}` is not an option of chats: .{{5}}"):
        sampling({name: "something"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_token": 5}, "did you mean `max_new_tokens`"),
        ({"zzz": 5}, "unknown option `zzz`"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "different values"),
        ({"max_tokens": 5, "max_new_tokens": 6}, "`max_tokens` and `max_new_tokens` mean the same"),
        ({"max_tokens": 0}, "^max_tokens cannot be 0: it is a whole number from 1"),
        ({"stop_strings": 1}, "`stop_strings` is a text"),
        ({"stop": ""}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": 1}, "stop"),
        ({"max_tokens": "5"}, "^max_tokens cannot be '5'"),
        ({"max_tokens": True}, "^max_tokens cannot be True"),
        ({"temperature": "hot"}, "temperature cannot be 'hot': it is a number from 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": "x"}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": "x"}, "seed"),
        ({"n": 0}, "^n cannot be 0"),
        ({"logprobs": 3}, "`top_logprobs` says how many"),
        ({"top_logprobs": 3}, "needs `logprobs: true`"),
        ({"logprobs": True, "top_logprobs": 21}, "^top_logprobs cannot be 21"),
        ({"presence_penalty": 3}, "presence_penalty cannot be 3"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"logit_bias": [1]}, "`logit_bias` maps token ids"),
        ({"logit_bias": {"a": 1}}, "`logit_bias` maps token ids"),
        ({"logit_bias": {"1": "x"}}, "logit_bias of token 1 cannot be 'x'"),
        ({"logit_bias": {"5": 1000}}, "^logit_bias of token 5 cannot be 1000: it is between -100 and 100"),
        ({"seed": 2**64}, "^seed cannot be"),
        ({"seed": -(2**63) - 1}, "^seed cannot be"),
    ],
)
def test_options_that_cannot_be_are_refused_in_words(options, words):
    with pytest.raises(PromptError, match=words):
        sampling(options)


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-46, 5e-324])
def test_temperatures_that_no_logit_can_be_divided_by_are_greedy(temperature):
    assert sampling({"temperature": temperature}) == Sampling(temperature=0.0)


def test_options_are_split_into_what_a_request_is_about_and_how_to_generate():
    about, how = split({"tags": iter(["a"]), "conversation": "c", "max_tokens": 3})
    assert about == {"tags": frozenset({"a"}), "conversation": "c"}
    assert how == Sampling(max_new_tokens=3)


def test_the_guard_takes_options_by_either_name(tmp_path):
    with guard(tmp_path, policy(threshold=NEVER)) as made:
        mine = made.chat("Hello", max_new_tokens=3, temperature=0)
        assert made.chat("Hello", max_tokens=3, temperature=0, n=1).text == mine.text
        assert "".join(made.stream("Hello", max_completion_tokens=3, temperature=0)) == mine.text
        with pytest.raises(PromptError, match="tags"):
            made.check("Hello", tag=["a"])


@pytest.mark.parametrize(
    ("name", "instead"), [("max_tokens", "max_new_tokens"), ("stop", "stop_strings"), ("n", "num_return")]
)
def test_generate_says_what_the_model_calls_it(tmp_path, name, instead):
    with guard(tmp_path, policy()) as made, pytest.raises(PromptError, match=instead):
        made.generate(**batch(1), **{name: 2})
