"""What the reports of `guardrail interpret` begin with, from results that are made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from guardrail.interpret.accuracy.items import Item
from guardrail.interpret.accuracy.results import AccuracyResult, Effect, PersonaResult
from guardrail.interpret.heads.results import (
    AblationResult,
    Concentration,
    Head,
    HeadResult,
    HeadStudy,
    Scaled,
)
from guardrail.interpret.lens.results import Contrast, LensResult
from guardrail.interpret.patching import Patch, PatchResult
from guardrail.interpret.patching.pairs import LENGTHS, Reject
from guardrail.interpret.patching.results import Described, Kept
from guardrail.report import interpret_leads as leads
from guardrail.report.patching import figures, patch_page
from guardrail.statistics.intervals import Estimate
from guardrail.testing import tiny_fingerprint

PAIR = Kept(name="one", source="a", target="b", gap=3.0, tokens=9, identity=(2, 3))
SOME = Estimate(0.3, 0.2, 0.4)
NONE = Estimate(0.0, -0.1, 0.1)


def patched(effects, pairs=6, rejects=()):
    """A result of these effects, which are the same for every pair."""
    about = Described(
        model="tiny",
        fingerprint=tiny_fingerprint(),
        form="text",
        layers=4,
        heads=4,
        near=3,
        window=4,
        directions=("denoising",),
        patches=tuple(effects),
        pairs=(PAIR,) * pairs,
        rejects=rejects,
        seconds=1.0,
    )
    values = np.array([[[value] * pairs for value in effects.values()]], np.float32)
    return PatchResult(about, values, values, values)


EFFECTS = {
    Patch((1,), "mlp", "identity"): 0.5,
    Patch((2,), "attn", "all"): 0.25,
    **{Patch((n,), "resid", "identity"): value for n, value in enumerate((1.0, 0.75, 0.25, 0.0, 0.0))},
}


def test_patching_names_the_strongest_output_and_how_far_the_identity_holds_the_effect():
    lead = leads.patching(patched(EFFECTS))
    assert (
        "Of 2 single outputs, the MLP of layer 1 at the identity's tokens moves answers most: 50.0 %"
        in lead.text
    )
    assert "over 6 pairs (denoising)" in lead.text
    assert "carry more than half of the effect up to layer 1." in lead.text
    assert lead.text.endswith(leads.ABOUT["patching"])
    heads = {Patch((2,), "heads", "all", 3): 0.4, Patch((1,), "heads", "all", 0): -0.5}
    alone = leads.patching(patched(heads)).text
    assert alone.startswith("Of 2 heads, 2.3 alone, at all tokens, moves answers most: 40.0 %")
    last = patched({Patch((2,), "heads", "last", 3): 0.4})
    assert "2.3 alone, at the last token, moves" in leads.patching(last).text
    assert [name for name, _ in figures(last)] == ["heads: effect at the last token (denoising)"]
    weak = leads.patching(patched(dict.fromkeys(EFFECTS, 0.0)))
    assert "No single output of a layer is shown to move answers, over 6 pairs." in weak.text
    assert "After no layer" in weak.text


def test_patching_without_pairs_says_why():
    rejects = (Reject("a", LENGTHS, "3 and 4 tokens"), Reject("b", LENGTHS), Reject("c", "other"))
    lead = leads.patching(patched(EFFECTS, 0, rejects))
    assert lead.text == f"No pair could be patched: {LENGTHS} (2 of 3)."
    assert lead.tone == "warn"
    page = patch_page(patched(EFFECTS, 6, rejects)).html()
    assert "The sample is small: 6 pairs, so the intervals are wide." in page
    assert "3 and 4 tokens" in page


def studied(effect):
    head = HeadResult(
        head=Head(2, 1),
        group="race",
        word=Estimate(0.3, 0.25, 0.35),
        neutral=0.1,
        elsewhere=0.01,
        effect=effect,
        p=0.001,
        q=0.01,
        over_controls=2.0,
        over_p=0.001,
        over_q=0.01,
    )
    return HeadStudy(
        model="tiny",
        form="chat",
        layers=4,
        heads=4,
        words={"race": ("Asian",), "neutral": ("tall",)},
        rejected={},
        templates=("You are {who}.",),
        contexts=3,
        results=(head,),
        concentration={"race": Concentration(heads=16, found=int(effect > 0), fewer=0, top=0.5)},
    )


def test_heads_names_the_strongest_head_and_what_scaling_did():
    changed = Scaled(effect={}, effect_change={"race": SOME}, accuracy=NONE, accuracy_change=NONE)
    scaled = AblationResult(
        heads=(Head(2, 1),), factor=0.0, items=12, effect={}, accuracy=NONE, scaled=changed, random=()
    )
    lead = leads.heads(studied(3.0), scaled)
    assert "1 of 16 heads attend to words of race more than to neutral words, 2.1 most: 30.0 %" in lead.text
    assert "against 10.0 %" in lead.text
    assert (
        "Heads 2.1 times 0 change accuracy by +0.0 (-10.0 to +10.0), the effect of race by +30.0" in lead.text
    )
    assert "nor that it is biased" in lead.text
    assert lead.tone == "warn"
    none = leads.heads(studied(-3.0), None)
    assert "No head of 16 is shown to attend to words of race" in none.text
    assert none.tone == ""
    unread = replace(studied(1.0), results=(), concentration={}, notes=("it cannot be read",))
    assert leads.heads(unread, scaled).text.endswith("What heads attend to was not read: it cannot be read.")


MOST = Estimate(0.6, 0.5, 0.7)


def looked(task, change, other, right=MOST):
    made = [
        Contrast(against=against, pairing="dataset", by_share=(value,), by_band=(value,), alone=None)
        for against, value in (("without", change), ("other", other))
    ]
    empty = dict.fromkeys(LensResult.__slots__)
    known = {"model": "tiny", "lens": "logit", "task": task, "contrasts": tuple(made)}
    return LensResult(**empty | known | {"accuracy": {"with": right}})


def test_lens_says_where_a_persona_raises_s():
    lead = leads.lens([looked("cloze", SOME, NONE), looked("comparison", NONE, SOME)])
    assert "tiny: a persona raises S of cloze (+0.300, 95 %: +0.200 to +0.400)" in lead.text
    assert "the persona of another item is beaten in comparison." in lead.text
    none = leads.lens([looked("cloze", NONE, NONE)])
    assert "tiny: a persona is not shown to change S; it is not shown to beat" in none.text
    lowers = Estimate(-0.3, -0.4, -0.2)
    assert "lowers S of cloze (-0.300" in leads.lens([looked("cloze", lowers, NONE)]).text
    assert none.tone == ""


def test_lens_begins_with_tasks_that_a_model_cannot_do():
    hardly = looked("common sense", SOME, NONE, Estimate(0.05, 0.02, 0.09))
    lead = leads.lens([looked("cloze", SOME, NONE), hardly])
    assert lead.text.startswith("tiny cannot do common sense (5.0 % (95 %: 2.0 to 9.0) right): S says next")
    assert lead.tone == "warn"


@pytest.mark.parametrize(
    ("q", "told"), [(0.01, "1 of 1 personas change"), (0.5, "None of 1 personas is shown")]
)
def test_accuracy_says_how_much_personas_change_and_on_how_many_items(q, told):
    effect = Effect(difference=SOME, changed=SOME, gained=3, lost=0, probability=SOME, p=q, q=q)
    items = tuple(Item(f"{i}?", ("a", "b"), 0, "x") for i in range(2))
    people = tuple(
        PersonaResult(
            name=name, text="", accuracy=SOME, by_subject={}, letters=(1.0,), effect=found, answers=answers
        )
        for name, found, answers in (("none", None, (0, 0)), ("tall", effect, (0, 1)))
    )
    found = AccuracyResult(
        model="tiny", form="chat", scoring="letters", items=items, chance=0.5, personas=people
    )
    lead = leads.accuracy(found)
    assert told in lead.text
    assert "Their answers differ on 1 of 2 items." in lead.text
    assert ("tall most: +30.0 (+20.0 to +40.0) percentage points" in lead.text) == (q < 0.05)
