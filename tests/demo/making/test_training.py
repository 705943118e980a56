"""The training stream is reproducible and weighted, and an interrupted training continues."""

import json
from random import Random

import pytest
import torch

from guardrail.demo import tasks
from guardrail.demo.generator import Condition, draw_prompt, draw_reply
from guardrail.demo.making import corpus, lessons, training
from guardrail.demo.making.architecture import training_dtype
from guardrail.demo.making.optimizer import orthogonalise
from guardrail.demo.making.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(corpus.sample_texts(1, 400), corpus.whole_words())


def test_the_same_seed_and_chunk_give_the_same_batches(tokenizer, monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK", 64)
    first, again, other = (corpus.batches(tokenizer, seed, 3) for seed in (1, 1, 2))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].ids, other[0].ids)


def test_shares_of_lessons_add_up_in_every_phase():
    for phase in range(3):
        assert sum(share[phase] for share in corpus.SHARES.values()) == pytest.approx(1)


def test_a_lesson_weighs_replies_more_than_prompts(tokenizer):
    rng = Random(1)
    conversation = draw_prompt(rng, Condition(split="train", domains=("advice",)))
    reply = draw_reply(rng, conversation.question, conversation.propensity)
    lesson = lessons.of_conversation(conversation, reply)
    assert lesson.text.endswith(f"<|assistant|>{reply}<|end|>")
    heavy = [lesson.text[a:b] for a, b, weight in lesson.spans if weight == lessons.COPY_WEIGHT]
    assert conversation.question.slots["topic"] in heavy or conversation.question.slots["person"] in heavy


def test_the_answer_of_a_task_is_what_is_learned():
    task = tasks.cloze(Random(1), "train", chat=False)
    lesson = lessons.of_task(task)
    ((first, last, weight),) = lesson.spans
    assert lesson.text[first:last] == f" {task.answer}.<|end|>"
    assert weight == lessons.ANSWER_WEIGHT


def test_every_identity_and_answer_is_one_token(tokenizer):
    for word in corpus.whole_words():
        for text in (word, f" {word}"):
            assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1, text


def test_float32_where_the_hardware_is_slow_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert training_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert training_dtype(torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_updates_have_singular_values_near_one(dtype):
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(2, 24, 40, generator=generator)
    values = torch.linalg.svdvals(orthogonalise(batch, dtype))
    assert values.min() > 0.5
    assert values.max() < 1.5


@pytest.mark.slow
def test_interrupted_training_continues_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    monkeypatch.setattr(training, "TEXTS", 400)
    monkeypatch.setattr(corpus, "CHUNK", 64)
    monkeypatch.setattr(corpus, "BUDGET", 512)
    training.train(tmp_path / "whole", tmp_path / "a", steps=5, checkpoints=True)
    real, count = training._Run.learn, []

    def interrupted(*arguments):
        count.append(1)
        if len(count) > 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(training._Run, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(tmp_path / "cut", tmp_path / "b", steps=5)
    monkeypatch.setattr(training._Run, "learn", real)
    training.train(tmp_path / "cut", tmp_path / "b", steps=5)
    first, second = ((tmp_path / x / "model.safetensors").read_bytes() for x in "ab")
    assert first == second
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model_type"] == "llama"
    assert len(list((tmp_path / "whole" / "checkpoints").glob("step-*/model.safetensors"))) == 5


@pytest.mark.slow
def test_a_run_of_another_seed_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 1)
    monkeypatch.setattr(training, "TEXTS", 400)
    monkeypatch.setattr(corpus, "CHUNK", 64)
    monkeypatch.setattr(corpus, "BUDGET", 512)
    training.train(tmp_path, tmp_path / "model", steps=1)
    assert training._Run(tmp_path, training.SEED, 1).place.step == 1
    assert training._Run(tmp_path, training.SEED + 1, 1).place.step == 0
