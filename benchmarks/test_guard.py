"""The whole product against the same by hand: rendering, worker, engine, decision and reply, in pairs."""

import pytest

from benchmarks import products
from guardrail.bench.plans import ALWAYS, NEVER

KINDS = {
    "allow": (NEVER, "block"),
    "block": (ALWAYS, "block"),
    "steer one layer": (ALWAYS, products.STEER),
}


@pytest.mark.parametrize("name", KINDS)
def test_chat(in_pairs, subject, tmp_path, name):
    """If the prompt passes, the reply equals the bare model's."""
    with products.made_up(subject, tmp_path, *KINDS[name]) as guard:
        in_pairs(subject, products.chat(subject, guard, f"Guard.chat, {name}", name == "allow"))


def test_check(in_pairs, subject, tmp_path):
    """A decision without a reply."""
    with products.made_up(subject, tmp_path, *KINDS["allow"]) as guard:
        in_pairs(subject, products.check(subject, guard))
