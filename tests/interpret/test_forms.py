"""How personas and questions become prompts, in every verb that asks them."""

import json

import pytest
from tiny import TOKENIZER

from guardrail.cli import run
from guardrail.cli.models import load_subject
from guardrail.cli.options import ModelOptions
from guardrail.errors import ModelError
from guardrail.extract.subject import Subject
from guardrail.interpret.accuracy.items import Item as Choice
from guardrail.interpret.accuracy.personas import NOBODY, Persona
from guardrail.interpret.accuracy.prompts import Asker
from guardrail.interpret.forms import IN_FRONT, UNTEMPLATED, chat_ids, notes
from guardrail.interpret.heads.words import NEUTRAL
from guardrail.interpret.lens.prompts import ask
from guardrail.interpret.lens.tasks import Item
from guardrail.interpret.patching.pairs import PairLine, aligned
from guardrail.testing import tiny_model, tiny_tokenizer

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


WORDS = {"capital": "CDEFGH", NEUTRAL: "cdefgh"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a model whose tokenizer has no chat template, and files to ask it about."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model("gpt2").save_pretrained(folder / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "model")
    files = {
        "pairs": [LINE.model_dump()],
        "items": [{"question": f"Is {x}?", "options": ["yes", "no"], "answer": "A"} for x in "xy"],
        "lens": [item.model_dump() for item in ITEMS],
        "words": [{"group": group, "word": word} for group, words in WORDS.items() for word in words],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def asked(verb, folder, out):
    """The command line of a verb about the base model."""
    given = {
        "patch": [folder / "pairs.jsonl", "--out", out, "--sweep", "scopes", "--least-gap", "0"],
        "heads": ["--data", folder / "items.jsonl", "--words", folder / "words.jsonl", "--items", "2"],
        "accuracy": ["--data", folder / "items.jsonl", "--identity", "tall"],
        "lens": ["--data", folder / "lens.jsonl"],
    }
    return ["interpret", verb, *map(str, given[verb]), "--model", str(folder / "model")]


VERBS = ["patch", "heads", "accuracy", "lens"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_without_a_chat_template_continues_texts_and_says_so(verb, base, tmp_path, capsys):
    # a random model may answer no pair otherwise, which is a finding
    assert run([*asked(verb, base, tmp_path), "--json"]) in ((0, 1) if verb == "patch" else (0,))
    said = capsys.readouterr()
    assert UNTEMPLATED in said.err
    found = json.loads(said.out)
    found = found["results"][0] if verb == "lens" else found.get("heads", found) if verb == "heads" else found
    assert found["form"] == "text"
    assert UNTEMPLATED in found["notes"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_without_a_chat_template_cannot_chat(verb, base, tmp_path, capsys):
    assert run([*asked(verb, base, tmp_path), "--form", "chat"]) == 2
    assert "the tokenizer has no chat template; give one" in capsys.readouterr().err


def test_all_others_want_a_chat_template(base):
    with pytest.raises(ModelError, match="the tokenizer has no chat template"):
        load_subject(ModelOptions(name=str(base / "model")))
