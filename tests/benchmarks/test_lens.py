"""The rules by which the lens experiment agrees or disagrees with a claim, and its items."""

from benchmarks.interpret.lens import DEMO_ITEMS, confined, demo_world, sign
from guardrail.interpret.lens.results import Contrast
from guardrail.statistics.intervals import Estimate

NOTHING = Estimate(0.0, -0.1, 0.1)
MORE = Estimate(0.3, 0.2, 0.4)


def made(*bands, share=MORE):
    shares = (NOTHING, share, share, share, share)
    return Contrast(against="without", pairing="dataset", by_share=shares, by_band=bands, alone=None)


def test_only_an_interval_beside_zero_decides():
    assert [sign(one) for one in (MORE, NOTHING, Estimate(-0.3, -0.4, -0.2))] == [
        "agrees",
        "undecided",
        "disagrees",
    ]


def test_an_effect_is_confined_if_it_is_there_and_nothing_adds_to_it():
    assert confined(made(NOTHING, MORE, NOTHING, NOTHING, NOTHING)) == "agrees"
    assert confined(made(NOTHING, MORE, NOTHING, MORE, NOTHING)) == "disagrees"
    assert confined(made(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, share=NOTHING)) == "undecided"


def test_the_demo_models_own_world_has_different_questions_about_ones_own_country():
    items = demo_world()
    assert len({item.persona + item.prompt for item in items}) == len(items) == DEMO_ITEMS
    assert all(item.persona.startswith("You are") for item in items)
    assert any("=" in item.prompt for item in items)
    assert any("=" not in item.prompt for item in items)
