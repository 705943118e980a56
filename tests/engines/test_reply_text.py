"""Replies token by token: characters that are whole, stop texts that never get out, not even in part."""

from time import process_time

import pytest
import torch
from tiny import TOKENIZER

from guardrail.engines.transformers.penalties import Penalties
from guardrail.engines.transformers.reply_text import Ending, ReplyText, StopTexts
from guardrail.types import Sampling, TokenLogprob


def ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def run(tokens, *stops, ends=(2,), logprobs=False, special_tokens=False):
    taken = []
    ending = Ending(TOKENIZER, frozenset(ends), stops, special_tokens)
    text = ReplyText(ending, lambda piece, found: taken.append((piece, found)))
    for token in tokens:
        text.put(token, TokenLogprob(TOKENIZER.decode([token]), -1.0) if logprobs else None)
    text.end()
    return taken


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two", (), "one two"),
        ("one two", (" ",), "one"),
        ("one two", ("two",), "one "),
        ("one two", ("two three",), "one two"),
        ("one two", ("o t", "e t"), "on"),
        ("aab", ("ab",), "a"),
        ("one", ("o",), ""),
        ("grüße 🙂 du", ("🙂 d",), "grüße "),
    ],
)
def test_a_stop_text_is_cut_off_and_never_handed_out_in_part(text, stops, expected):
    so_far = ""
    for piece, _ in run(ids(text), *stops):
        so_far += piece
        assert expected.startswith(so_far)
    assert so_far == expected


def test_characters_are_handed_out_once_they_are_whole():
    assert [piece for piece, _ in run(ids("ü🙂x"))] == ["ü", "🙂", "x"]
    assert [piece for piece, _ in run(ids("🙂")[:2])] == ["\ufffd"]


def test_what_comes_after_the_end_is_not_part_of_the_reply():
    assert "".join(piece for piece, _ in run([*ids("ab"), 2, *ids("cd")])) == "ab"


def test_special_tokens_are_left_out_unless_they_are_wanted():
    tokens = [*ids("a"), 5, *ids("b"), 2]
    assert "".join(piece for piece, _ in run(tokens)) == "ab"
    assert "".join(piece for piece, _ in run(tokens, special_tokens=True)) == "a<|assistant|>b"


def test_log_probabilities_come_with_the_text_of_their_tokens_and_not_with_a_stop_text():
    taken = run(ids("a🙂bxy"), "xy", logprobs=True)
    assert [(piece, len(found)) for piece, found in taken if piece] == [("a", 1), ("🙂", 4), ("b", 1)]


def test_the_criterion_ends_each_row_by_its_own_reply():
    rows = torch.tensor([ids("xyab"), ids("xyaQ"), ids("Qyab")])
    criterion = StopTexts(Ending(TOKENIZER, frozenset({2}), ("Q", "b c")), width=2)
    assert criterion(rows).tolist() == [False, True, False]


def test_the_tokens_of_a_stop_text_are_counted_and_padding_is_not():
    ending = Ending(TOKENIZER, frozenset({2}), ("stop",))
    assert ending.tokens([*ids("a stop"), 0, 0]) == 6
    assert ending.tokens([*ids("a go"), 2]) == 5


def test_a_bias_on_every_token_costs_no_time_for_each():
    biases = tuple((token, 1.0) for token in range(30_000))
    penalties, start = Penalties(Sampling(logit_bias=(*biases, (5, 2.0))), width=1), process_time()
    for _ in range(20):
        found = penalties(torch.tensor([[1, 2]]), torch.zeros(1, 30_000, dtype=torch.bfloat16))
    assert process_time() - start < 1
    assert found[0, 4:7].tolist() == [1.0, 3.0, 1.0]


def test_penalties_count_the_reply_and_not_the_prompt():
    asked = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((3, 2.0),))
    found = Penalties(asked, width=2)(torch.tensor([[1, 1, 2, 2, 0], [1, 1, 3, 3, 3]]), torch.zeros(2, 4))
    assert found.tolist() == [[-0.75, 0.0, -1.0, 2.0], [0.0, 0.0, 0.0, 2.0 - 1.25]]
