"""Many callers, one model: no caller gets another's answer, and steering one reaches no other."""

import asyncio
import threading
import time

import pytest
import torch
from tiny import TEXTS, TOKENIZER, guard, plain_policies, policy, rewatch

from guardrail.testing import tiny_model

GREEDY = {"temperature": 0, "max_new_tokens": 6}
STEER = {"steer": {"operator": "add", "coefficient": -3.0, "layers": "all"}}
RULES = (
    policy(STEER, when={"tags": ["steered"]}),
    policy(id="stop", message="No.", when={"tags": ["blocked"]}),
)
KINDS = ("plain", "steered", "blocked")


def expected(made):
    return {(kind, text): made.chat(text, tags=[kind], **GREEDY).text for kind in KINDS for text in TEXTS[:4]}


def cases(count):
    return [(KINDS[i % 3], TEXTS[i % 4]) for i in range(count)]


@pytest.mark.filterwarnings("ignore::guardrail.pipeline.installation.UnguardedWarning")
def test_sixteen_threads_get_their_own_answers_beside_calls_of_the_model_itself(tmp_path):
    found, errors = {}, []

    def ask(made, i, kind, text):
        try:
            found[i] = made.chat(text, tags=[kind], **GREEDY)
        except Exception as error:
            errors.append(error)

    ids = TOKENIZER("some prompt", return_tensors="pt")["input_ids"]
    plain = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    reference = tiny_model().generate(ids, **plain)
    with guard(tmp_path, *RULES) as made:
        right = expected(made)
        todo = cases(48)
        threads = [threading.Thread(target=ask, args=(made, i, *case)) for i, case in enumerate(todo)]
        for start in range(0, 48, 16):
            for thread in threads[start : start + 16]:
                thread.start()
            for _ in range(3):
                assert torch.equal(made.model.generate(ids, **plain), reference)
            for thread in threads[start : start + 16]:
                thread.join()
    assert errors == []
    assert [found[i].text for i in range(48)] == [right[case] for case in todo]
    assert all((found[i].steered_passes > 0) == (todo[i][0] == "steered") for i in range(48))


def test_sixty_four_tasks_on_one_loop(tmp_path):
    with guard(tmp_path, *RULES) as made:
        right = expected(made)
        todo = cases(64)

        async def ask():
            return await asyncio.gather(*(made.achat(text, tags=[kind], **GREEDY) for kind, text in todo))

        replies = asyncio.run(ask())
    assert [reply.text for reply in replies] == [right[case] for case in todo]


def test_streams_and_chats_interleave(tmp_path):
    with guard(tmp_path, *RULES) as made:
        right = expected(made)
        streams = [made.stream(text, tags=[kind], **GREEDY) for kind, text in cases(6)]
        chats = [made.chat(text, tags=[kind], **GREEDY).text for kind, text in cases(6)]
        assert ["".join(stream) for stream in streams] == [right[case] for case in cases(6)] == chats


def test_a_forward_of_another_thread_waits_for_the_guarded_generation(tmp_path):
    order, started = [], threading.Event()

    def notice(module, args):
        order.append(threading.current_thread().name)
        started.set()
        time.sleep(0.005)

    def other(made):
        started.wait()
        with torch.no_grad():
            made.model(torch.tensor([[1, 2]]))

    with guard(tmp_path, policy(threshold=1e6)) as made:
        made.engine.blocks[0].register_forward_pre_hook(notice)
        rewatch(made)
        thread = threading.Thread(target=other, args=(made,), name="other")
        thread.start()
        made.chat("Hello", **GREEDY)
        thread.join()
    assert order == ["guardrail-worker"] * 6 + ["other"]


def test_two_guards_cannot_hold_one_model(tmp_path):
    from guardrail import Guard
    from guardrail.errors import ModelError

    with guard(tmp_path, policy()) as made, pytest.raises(ModelError, match="another guard"):
        Guard(made.model, TOKENIZER, plain_policies(tmp_path))
