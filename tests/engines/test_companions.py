"""What goes with a row of a batch still goes with that row when others were stopped."""

import pytest
import torch
from tiny import CACHE, Fixed, batch, engine, generate, plan
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import LogitsProcessor, StoppingCriteria

from guardrail.errors import PromptError, UnsupportedGeneration

KEPT = [1, 3]
GREEDY = {"do_sample": False, "max_new_tokens": 4, "pad_token_id": 0, "eos_token_id": None}


class Bias(LogitsProcessor):
    """Row i, of `expand` beams each, can only say 10 + i."""

    def __init__(self, rows, expand=1):
        self.bias = torch.full((rows, 262), -1e9)
        self.bias[range(rows), range(10, 10 + rows)] = 0.0
        self.bias = self.bias.repeat_interleave(expand, 0)

    def __call__(self, input_ids, scores):
        return scores + self.bias


class Limits(StoppingCriteria):
    """Row i ends after 1 + i tokens."""

    def __init__(self, rows, width):
        self.ends = torch.arange(rows) + 1 + width

    def __call__(self, input_ids, scores, **kwargs):
        assert scores is None or all(len(step) == len(self.ends) for step in scores)
        return input_ids.shape[1] >= self.ends


class Keeper:
    """A streamer for several rows."""

    def __init__(self):
        self.steps, self.ended = [], 0

    def put(self, value):
        assert not self.ended
        self.steps.append(value.tolist())

    def end(self):
        self.ended += 1


def guarded(actions=("block", "allow"), rows=4, answer="No.", **kwargs):
    asked = {**batch(rows), **GREEDY, **kwargs}
    with engine(attn_implementation="eager") as (made, _):
        result = generate(made, plan(), Fixed(actions), **asked)
        stopped = {row: answer for row, decision in enumerate(result.decisions) if decision.stops}
        return made.assemble(asked, result, stopped), asked["input_ids"].shape[1]


def test_a_bias_stays_with_its_row():
    output, width = guarded(logits_processor=LogitsProcessorList([Bias(4)]))
    assert output[KEPT, width].tolist() == [11, 13]


def test_a_bias_stays_with_its_beams():
    output, width = guarded(logits_processor=[Bias(4, expand=2)], num_beams=2)
    assert output[KEPT, width].tolist() == [11, 13]


def test_stopping_criteria_stay_with_their_rows():
    output, width = guarded(
        stopping_criteria=StoppingCriteriaList([Limits(4, batch(4)["input_ids"].shape[1])]),
        eos_token_id=2,
        logits_processor=[Bias(4)],
        return_dict_in_generate=True,
        output_scores=True,
    )
    said = output.sequences[KEPT, width : width + 4].tolist()
    assert said == [[11, 11, 0, 0], [13, 13, 13, 13]]


def test_stopping_criteria_stay_with_the_beams_of_their_rows():
    width = batch(4)["input_ids"].shape[1]

    def ended(ids, scores, **_):
        # of all candidates, of which there are more than beams
        return ids.shape[1] - width >= torch.tensor([1, 2, 3, 4]).repeat_interleave(len(ids) // 4)

    asked = {"num_beams": 2, "stopping_criteria": [ended]}
    (output, _), (plain, _) = guarded(**asked), guarded(("allow",), **asked)
    assert output[KEPT, width : width + 4].tolist() == plain[KEPT, width:].tolist()


def test_a_tensor_as_long_as_the_batch_that_is_not_about_rows_is_left_alone():
    ends = torch.tensor([10, 11, 12, 99])
    output, width = guarded(eos_token_id=ends, logits_processor=[Bias(4)])
    assert output[KEPT, width : width + 2].tolist() == [[11, 0], [13, 13]]


@pytest.mark.parametrize("answer", ["No.", "n", ""])
def test_scores_and_states_have_a_row_for_every_sequence(answer):
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    asked |= {"output_hidden_states": True, "output_attentions": True}
    output, width = guarded(answer=answer, **asked)
    plain, _ = guarded(("allow",), **asked)
    steps = output.sequences.shape[1] - width
    assert len(output.scores) == len(output.logits) == steps
    for name in ("scores", "logits"):
        for mine, theirs in zip(getattr(output, name), getattr(plain, name), strict=False):
            torch.testing.assert_close(mine[KEPT], theirs[KEPT])
            assert mine[[0, 2]].isnan().all()
    for name in ("hidden_states", "attentions"):
        for mine, theirs in zip(getattr(output, name), getattr(plain, name), strict=True):
            for here, there in zip(mine, theirs, strict=True):
                torch.testing.assert_close(here[KEPT], there[KEPT])
    assert getattr(output, CACHE) is None


@pytest.mark.parametrize("answer", ["n", "A longer answer than the replies."])
def test_transition_scores_of_beams_are_those_of_the_same_rows(answer):
    asked = {"return_dict_in_generate": True, "output_scores": True, "num_beams": 2}
    asked |= {"num_return_sequences": 2}
    output, _ = guarded(answer=answer, **asked)
    plain, _ = guarded(("allow",), **asked)
    with engine() as (made, _):
        found = made.inner.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        wanted = made.inner.compute_transition_scores(plain.sequences, plain.scores, plain.beam_indices)
    rows = [2, 3, 6, 7]
    torch.testing.assert_close(found[rows][:, : wanted.shape[1]], wanted[rows])
    assert found[[0, 1, 4, 5]].isnan().all()
    torch.testing.assert_close(output.sequences_scores[rows], plain.sequences_scores[rows])


def test_a_streamer_of_several_rows_gets_every_row_and_one_end():
    streamer = Keeper()
    output, width = guarded(streamer=streamer, logits_processor=[Bias(4)])
    prompt, *steps = streamer.steps
    assert [len(step) for step in steps] == [4] * len(steps)
    assert (streamer.ended, prompt) == (1, output[:, :width].tolist())
    for row, said in enumerate(zip(*steps, strict=True)):
        sent = [token for token in said if token != 0]
        assert sent == [token for token in output[row, width:].tolist() if token not in (0, 2)]


def test_a_streamer_ends_when_every_row_was_stopped():
    streamer = Keeper()
    guarded(("block",), streamer=streamer)
    assert streamer.ended == 1


def test_a_cache_of_the_callers_is_refused_before_anything_is_said_and_is_as_it_was():
    cache = DynamicCache()
    with pytest.raises(UnsupportedGeneration, match="cache"):
        guarded(**{CACHE: cache})
    assert cache.get_seq_length() == 0
    output, width = guarded(("allow",), **{CACHE: cache})
    assert output.shape[1] == width + 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention_mask", torch.ones(2, 1, 3, 3)),
        ("attention_mask", torch.ones(1, 3)),
        ("position_ids", torch.ones(3, 2, 3)),
        ("token_type_ids", [[0, 0, 0]] * 2),
    ],
)
def test_inputs_that_do_not_have_a_row_for_each_prompt_are_refused(name, value):
    with engine() as (made, _), pytest.raises(PromptError, match=name):
        made.prompts({"input_ids": torch.ones(2, 3, dtype=torch.long), name: value})
