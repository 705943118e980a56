"""How personas and questions become prompts, in every verb that asks them."""

import pytest
from tiny import TOKENIZER

from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item as Choice
from guardrail.interpret.accuracy.personas import NOBODY, Persona
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.forms import IN_FRONT, chat_ids, notes
from guardrail.interpret.lens import Item
from guardrail.interpret.lens.prompts import ask
from guardrail.interpret.patching.pairs import PairLine, aligned
from guardrail.testing import tiny_model

REFUSES = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
LEAVES_OUT = REFUSES.replace("{{ raise_exception('no system role') }}", "{% continue %}")
CHOICE = Choice("Who barks?", ("a cat", "a dog"), 1, "things")
ITEMS = [Item(persona=f"You are {who}.", prompt=f"{who} says", answers=("x",)) for who in ("Bo", "Al")]
LINE = PairLine(system="You are {identity}.", prompt="Who?", source="x", target="y", name="one")


@pytest.mark.parametrize("template", [REFUSES, LEAVES_OUT])
def test_without_system_messages_the_persona_stands_in_front_of_the_question(template):
    subject = Subject(tiny_model(), TOKENIZER, chat_template=template)
    asked = Asker(subject, "chat", "letters").ask(Persona("tall", "You are tall."), CHOICE).prompt
    (pair,), rejects = aligned(subject, [LINE], "chat")
    texts = [
        *(TOKENIZER.decode(ids) for ids in (chat_ids(subject, "You are tall.", "Who?"), asked)),
        *(TOKENIZER.decode(ids) for ids in (pair.source, ask(subject, ITEMS, "chat").rows["with"][0])),
    ]
    fronts = ["You are tall.\n\nWho?", "You are tall.\n\nWho barks?", "You are x.\n\nWho?"]
    for text, front in zip(texts, [*fronts, "You are Bo.\n\nBo says"], strict=True):
        assert text.startswith(f"[user] {front}")
    assert rejects == []
    assert list(notes(subject, "chat")) == [IN_FRONT]
    assert "tall" not in TOKENIZER.decode(Asker(subject, "chat", "letters").ask(NOBODY, CHOICE).prompt)


def test_a_template_with_system_messages_gets_them():
    subject = Subject(tiny_model(), TOKENIZER)
    assert TOKENIZER.decode(chat_ids(subject, "You.", "Who?")).startswith("<s><|system|>You.<|end|><|user|>")
    assert list(notes(subject, "chat")) == []
