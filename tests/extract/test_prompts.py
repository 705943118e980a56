"""Which prompts are rolled out, and how an instruction becomes a system prompt."""

from extraction import definition

from guardrail.extract.prompts import SystemPrompts, mixed_prompts, prompts_sha256, trait_prompts
from guardrail.types import Message


def test_every_instruction_meets_every_extraction_question_on_both_sides_and_questions_stand_alone():
    prompts = trait_prompts(definition())
    kinds = [prompt.kind for prompt in prompts]
    assert [kinds.count(kind) for kind in ("positive", "negative", "neutral")] == [8, 8, 4]
    assert len({prompt.messages for prompt in prompts}) == len({prompt.key for prompt in prompts}) == 20
    assert {p.asked for p in prompts} == set(definition().extraction)


def test_the_system_prompt_is_the_instruction_as_it_stands():
    first = trait_prompts(definition())[0]
    assert first.messages == (Message("system", "be +"), Message("user", "who?"))
    assert [m.role for m in trait_prompts(definition())[-1].messages] == ["user"]


def test_held_out_prompts_ask_the_evaluation_questions():
    assert {p.asked for p in trait_prompts(definition(), held_out=True)} == set(definition().evaluation)


def test_a_sentence_can_be_put_before_the_instruction_and_other_braces_stay():
    systems = SystemPrompts(positive="You are a {trait} assistant. {instruction} {x}")
    prompts = trait_prompts(definition(), systems)
    assert prompts[0].messages[0].content == "You are a shouting assistant. be + {x}"
    assert prompts[8].messages[0].content == "be calm"
    assert prompts_sha256(prompts) != prompts_sha256(trait_prompts(definition()))


def test_the_question_of_a_prompt_of_ones_own_is_what_the_user_said_last():
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("system", "d")]
    (prompt,) = mixed_prompts([turns])
    assert (prompt.asked, prompt.kind) == ("c", "mixed")
