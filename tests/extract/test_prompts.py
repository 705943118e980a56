"""Which prompts are rolled out, and how an instruction becomes a system prompt."""

from dataclasses import replace

from extraction import definition

from guardrail.extract.prompts import SystemPrompts, mixed_prompts, prompts_sha256, trait_prompts
from guardrail.traits import InstructionPair, load_definition
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


def test_a_blank_instruction_is_no_system_message_and_sides_may_ask_different_things():
    refusal = load_definition("refusal")
    prompts = trait_prompts(refusal)
    assert len(prompts) == 60
    assert all([m.role for m in p.messages] == ["user"] for p in prompts)
    positive, negative = (next(p for p in prompts if p.kind == kind) for kind in ("positive", "negative"))
    assert "tricks people" in positive.asked
    assert "reminds people" in negative.asked
    assert (positive.question, positive.cluster) == (negative.question, 0)


def test_roles_are_the_clusters_of_an_axis():
    axis = load_definition("assistant")
    prompts = trait_prompts(axis)
    negative = [p for p in prompts if p.kind == "negative"]
    assert {p.role for p in negative} == set(axis.roles)
    assert {p.cluster for p in negative} == set(range(10))
    assert [m.role for m in prompts[0].messages] == ["user"]
    by_key = {p.key: p for p in prompts}
    for prompt in negative:
        assert by_key[prompt.key.replace("negative", "positive")].role == prompt.role


def test_evaluation_has_instructions_of_its_own_where_the_definition_has():
    own = (InstructionPair(positive="loud", negative="soft"),)
    definition = replace(load_definition("evil"), evaluation_instructions=own)
    held_out = trait_prompts(definition, held_out=True)
    assert {p.messages[0].content for p in held_out if p.kind == "positive"} == {"loud"}
    assert len([p for p in trait_prompts(definition) if p.kind == "positive"]) == 100
