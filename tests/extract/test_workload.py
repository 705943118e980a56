"""How long work will take: what remains, and a few replies that tell the speed."""

import pytest
from extraction import definition, planted_subject

from guardrail.extract.prompts import trait_prompts
from guardrail.extract.workload import Speed, Workload, forecast, measured, seconds

SPEED = Speed(prompt_s=0.5, token_s=0.1)


def test_work_adds_up_and_its_time_lies_between_two_bounds():
    work = Workload(replies=10, max_new_tokens=20, judged=30, read=4, batch=64) + Workload(
        replies=5, max_new_tokens=8
    )
    assert (work.replies, work.max_new_tokens, work.judged, work.read) == (15, 20, 30, 4)
    rest = 15 * 0.5 + 2 * 4 * 0.5
    assert seconds(work, SPEED, 0.2) == pytest.approx((rest + 4 * 20 * 0.1 + 6, rest + 15 * 20 * 0.1 + 6))
    assert seconds(work, SPEED, None) == pytest.approx((rest + 8, rest + 30))


@pytest.mark.parametrize(
    ("work", "judge_s", "told"),
    [
        (
            Workload(replies=1200, max_new_tokens=20, judged=2400, batch=50),
            0.1,
            "1,200 replies of at most 20 tokens, 2,400 requests to the judge: 17 minutes to 54 minutes",
        ),
        (
            Workload(replies=8, max_new_tokens=20, judged=8, batch=8),
            None,
            "12 seconds to 20 seconds, and the judge's time,",
        ),
        (Workload(replies=9000, max_new_tokens=20, batch=64), 0.1, "94 minutes to 6.2 hours, measured on"),
        (Workload(read=10), None, "10 texts to read: at most 10 seconds, measured on 4 short replies"),
        (Workload(), None, "nothing left to do: at most 1 second, measured"),
    ],
)
def test_people_are_told_in_one_line(work, judge_s, told):
    assert told in forecast(work, SPEED, judge_s)


def test_the_speed_is_measured_on_the_model_itself():
    prompts = [prompt.messages for prompt in trait_prompts(definition())]
    speed = measured(planted_subject(), prompts)
    assert 0 < speed.prompt_s + speed.token_s < 5
